"""From lines to calls: split calls joined, sets of files read together, what encloses what."""
