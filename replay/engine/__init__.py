"""Computes, and knows no traces: columns, sorting, compiled loops, a cache, work ahead in a thread."""
