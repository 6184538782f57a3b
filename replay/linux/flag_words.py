"""Numbers of flags as the words that strace prints for them.

In go a call and the number of its flags or protection, out comes the text, such as `MAP_PRIVATE|MAP_ANONYMOUS`.

Source: strace's xlat tables and printflags: known bits in the order of the table, the rest in hexadecimal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from replay.linux import constants

_FLAG_TABLES: Final = {
    "mremap": constants.MREMAP,
    "clone": constants.CLONE,
    "clone3": constants.CLONE,
    "shmat": constants.SHMAT,
    "shmget": constants.SHMGET,
    "open": constants.OPEN,
    "openat": constants.OPEN,
    "openat2": constants.OPEN,
    "execveat": {"AT_SYMLINK_NOFOLLOW": 0x100, "AT_EMPTY_PATH": 0x1000},
    "mlock2": {"MLOCK_ONFAULT": 1},
    "mlockall": {"MCL_CURRENT": 1, "MCL_FUTURE": 2, "MCL_ONFAULT": 4},
    "msync": {"MS_ASYNC": 1, "MS_INVALIDATE": 2, "MS_SYNC": 4},
    "memfd_create": {"MFD_CLOEXEC": 1, "MFD_ALLOW_SEALING": 2, "MFD_HUGETLB": 4, "MFD_NOEXEC_SEAL": 8, "MFD_EXEC": 16},
    "map_shadow_stack": {"SHADOW_STACK_SET_TOKEN": 1},
    "close_range": {"CLOSE_RANGE_UNSHARE": 2, "CLOSE_RANGE_CLOEXEC": 4},
}

_VALUE_TABLES: Final = {"madvise": constants.MADV}

_SIGNAL_MASK: Final = 0xFF
"""CSIGNAL: the bits of clone's flags that hold the signal sent at the child's exit."""


_ALL_BITS: Final = (1 << 64) - 1
"""A number of a register is printed without sign."""


def prot_text(prot: int) -> str:
    """Return a protection in words, such as `PROT_READ|PROT_WRITE`."""
    return _bits(prot, constants.PROT, "PROT_NONE")


def flags_text(call: str, flags: int) -> str:
    """Return the flags of `call` in words; for a call whose flags are not known, the number in hexadecimal."""
    if call in ("mmap", "remap_file_pages"):
        return _mmap_flags(flags)
    if call == "shmget":
        return _shmget_flags(flags)
    if call in _VALUE_TABLES:
        names = {number: name for name, number in _VALUE_TABLES[call].items()}
        return names.get(flags, hex(flags))
    if call in ("clone", "clone3"):
        return _clone_flags(flags)
    table = _FLAG_TABLES.get(call, {})
    nothing = next((name for name, bits in table.items() if bits == 0), "0")
    return _bits(flags, table, nothing)


def _bits(value: int, table: Mapping[str, int], nothing: str) -> str:
    words = [name for name, bits in table.items() if bits and value & bits == bits]
    rest = value & _ALL_BITS & ~sum(table[name] for name in words)
    if rest:
        words.append(hex(rest))
    return "|".join(words) or nothing


def _shmget_flags(flags: int) -> str:
    """Return shmget's flags: the known bits, the huge page size, the mode in octal. Source: strace's ipc_shm.c."""
    mode, rest = flags & 0o777, flags & ~0o777
    words = []
    if rest & constants.SHMGET["SHM_HUGETLB"] and (huge := rest >> constants.MAP_HUGE_SHIFT & 0x3F):
        words = [f"{huge}<<SHM_HUGE_SHIFT"]
        rest &= ~(0x3F << constants.MAP_HUGE_SHIFT)
    first = [_bits(rest, constants.SHMGET, "")] if rest else []
    return "|".join([*first, *words, f"0{mode:o}" if mode > 0o7 else f"{mode:03o}"])


def _mmap_flags(flags: int) -> str:
    """Return mmap's flags: the type, the known bits, the huge page size, the rest."""
    types = {number: name for name, number in constants.MAP_TYPES.items()}
    kind = flags & constants.MAP_TYPE_MASK
    words = [types.get(kind, hex(kind))]
    rest = flags & ~constants.MAP_TYPE_MASK
    huge = 0
    if rest & constants.MAP_FLAGS["MAP_HUGETLB"]:
        huge = rest >> constants.MAP_HUGE_SHIFT & 0x3F
        rest &= ~(0x3F << constants.MAP_HUGE_SHIFT)
    if rest:
        words.append(_bits(rest, constants.MAP_FLAGS, ""))
    if huge:
        words.append(f"{huge}<<MAP_HUGE_SHIFT")
    return "|".join(words)


def _clone_flags(flags: int) -> str:
    signals = {number: name for name, number in constants.SIGNALS.items()}
    signal = flags & _SIGNAL_MASK
    words = [_bits(flags & ~_SIGNAL_MASK, constants.CLONE, "")] if flags & ~_SIGNAL_MASK else []
    if signal:
        words.append(signals.get(signal, str(signal)))
    return "|".join(words) or "0"
