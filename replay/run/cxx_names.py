"""Names of C++ functions: from the symbol of an object file to what the source has, where cxxfilt is installed.

In goes a symbol, out comes a name. Whether it stands in a stack this module does not know.
"""

from __future__ import annotations

from typing import Final

MANGLED: Final = "_Z"
"""What mangled names begin with. Source: Itanium C++ ABI, 5.1.2."""


def demangled(symbol: str) -> str:
    """Return the name behind a symbol, by the C++ run time's own demangler; the symbol where that knows none."""
    if not symbol.startswith(MANGLED):
        return symbol
    try:
        import cxxfilt
    except ImportError:
        return symbol
    try:
        return str(cxxfilt.demangle(symbol))
    except (cxxfilt.Error, UnicodeError):
        return symbol
