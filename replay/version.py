"""The version of replay, said here alone."""

from __future__ import annotations

__version__ = "0.1.0"
