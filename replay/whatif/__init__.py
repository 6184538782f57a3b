"""What if: the recorded requests served again by real allocators under other policies."""
