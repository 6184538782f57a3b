"""Calls drive address spaces: processes, descriptors, limits, the replay itself."""
