"""A replayed run: its tables, its moments, its summary."""
