"""From chunks to columns of lines: scanning, shapes of lines, templates."""
