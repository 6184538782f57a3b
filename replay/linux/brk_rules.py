"""Two bounds of the kernel that decide whether a break may grow. No logic."""

from __future__ import annotations

from typing import Final

GUARD_PAGES: Final = 256
"""Free pages that the kernel keeps below a mapping that grows down. Source: stack_guard_gap in mm/mmap.c (4.12)."""

MAX_MAP_COUNT: Final = 65530
"""Mappings that a space may have. Source: DEFAULT_MAX_MAP_COUNT in include/linux/mm.h."""
