"""The program headers of an ELF file: what execve maps of it.

In goes the beginning of a file, out come its segments and what else places them. What a log says of them is not known
here.

Source: elf(5); fs/binfmt_elf.c, load_elf_binary and elf_load; include/uapi/linux/elf.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from replay.linux.proc_maps import Mapping, perms_text

ET_EXEC: Final = 2
ET_DYN: Final = 3
PT_LOAD: Final = 1
PT_INTERP: Final = 3
PT_NOTE: Final = 4
PT_TLS: Final = 7
PT_GNU_STACK: Final = 0x6474E551
PT_GNU_RELRO: Final = 0x6474E552
NT_GNU_BUILD_ID: Final = 3

_MAGIC: Final = b"\x7fELF"
_LITTLE, _CLASS_64 = 1, 2
_HEADERS: Final = {1: ("HHIIIIIHHHHHH", "IIIIIIII"), 2: ("HHIQQQIHHHHHH", "IIQQQQQQ")}
"""The rest of the file header behind its 16 bytes, and a program header, by the class of the file."""

_MOST_HEADERS: Final = 128
_MOST_BYTES: Final = 1 << 16
"""The kernel reads program headers of at most 64 KiB. Source: fs/binfmt_elf.c, load_elf_phdrs."""

_PROT_OF_FLAGS: Final = ((4, 1), (2, 2), (1, 4))
"""PF_R, PF_W and PF_X as PROT_ bits."""


class Segment(NamedTuple):
    """A program header: `[vaddr, vaddr + memsz)`, of which `filesz` bytes from `offset` on stand in the file."""

    type: int
    flags: int
    offset: int
    vaddr: int
    filesz: int
    memsz: int

    @property
    def prot(self) -> int:
        """The segment's permissions as PROT_ bits."""
        return sum(prot for flag, prot in _PROT_OF_FLAGS if self.flags & flag)


class ElfFile(NamedTuple):
    """What of an ELF file execve looks at; `interpreter` is PT_INTERP's path, empty for a static program."""

    path: str
    bits: int
    type: int
    machine: int
    segments: tuple[Segment, ...]
    interpreter: str = ""
    build_id: str = ""

    @property
    def loads(self) -> list[Segment]:
        """The segments that are mapped, in order of addresses."""
        return [segment for segment in self.segments if segment.type == PT_LOAD and segment.memsz]

    @property
    def is_movable(self) -> bool:
        """Whether the kernel chooses where the file is mapped (PIE, shared objects)."""
        return self.type == ET_DYN

    def of_type(self, kind: int) -> Segment | None:
        """Return the first program header of a type."""
        return next((segment for segment in self.segments if segment.type == kind), None)

    def relro(self, page: int) -> tuple[int, int] | None:
        """Return `[start, end)` of what the loader protects after relocation, relative to the base; None if nothing.

        Source: glibc, elf/dl-reloc.c, _dl_protect_relro (both ends rounded down); musl, ldso/dynlink.c, reloc_all.
        """
        segment = self.of_type(PT_GNU_RELRO)
        if segment is None:
            return None
        start, end = _down(segment.vaddr, page), _down(segment.vaddr + segment.memsz, page)
        return (start, end) if start < end else None

    def span(self, page: int) -> tuple[int, int]:
        """Return `[start, end)` of all that is mapped, page aligned, relative to the base."""
        loads = self.loads
        return _down(loads[0].vaddr, page), _up(max(load.vaddr + load.memsz for load in loads), page)

    def mappings(self, base: int, page: int) -> list[Mapping]:
        """Return the lines of /proc/PID/maps that the kernel makes of the file, loaded at `base`.

        Where segments share a page the later one is mapped over it. What of a segment lies behind its bytes of the
        file, page by page, is anonymous and writable (bss).

        Source: fs/binfmt_elf.c, elf_map, elf_load, set_brk.
        """
        lines: list[Mapping] = []
        for load in self.loads:
            start, filled = _down(base + load.vaddr, page), _up(base + load.vaddr + load.filesz, page)
            end = _up(base + load.vaddr + load.memsz, page)
            while lines and lines[-1].end > start:
                last = lines.pop()
                lines += [last._replace(end=start)] if last.start < start else []
            if load.filesz:
                perms = perms_text(load.prot, shared=False)
                lines.append(Mapping(start, filled, perms, _down(load.offset, page), self.path))
            else:
                filled = start
            if end > filled:
                lines.append(Mapping(filled, end, perms_text(3 | load.prot & 4, shared=False), 0, ""))
        return lines


def read_elf(path: str | Path) -> ElfFile | None:
    """Return what execve looks at in a file, None if it is no ELF file, is damaged or cannot be read."""
    try:
        with open(path, "rb") as file:
            return _parsed(file, str(path))
    except (OSError, struct.error, ValueError, OverflowError):
        return None


def _parsed(file: BinaryIO, path: str) -> ElfFile | None:
    head = file.read(64)
    if len(head) < 52 or head[:4] != _MAGIC or head[4] not in _HEADERS:
        return None
    order = "<" if head[5] == _LITTLE else ">"
    header, _ = _HEADERS[head[4]]
    kind, machine, _version, _entry, phoff, _shoff, _flags, _ehsize, phentsize, phnum, *_ = struct.unpack_from(
        order + header, head, 16
    )
    segments = tuple(_segments(file, head[4], order, phoff, phentsize, min(phnum, _MOST_HEADERS)))
    if not any(segment.type == PT_LOAD and segment.memsz for segment in segments):
        return None
    return ElfFile(
        path=path,
        bits=64 if head[4] == _CLASS_64 else 32,
        type=kind,
        machine=machine,
        segments=segments,
        interpreter=_interpreter(file, segments),
        build_id=_build_id(file, segments, order),
    )


def _segments(file: BinaryIO, bits: int, order: str, offset: int, size: int, count: int) -> Iterator[Segment]:
    form = order + _HEADERS[bits][1]
    file.seek(offset)
    table = file.read(size * count)
    for place in range(count):
        values = struct.unpack_from(form, table, place * size)
        if bits == _CLASS_64:
            kind, flags, start, vaddr, _paddr, filesz, memsz, _align = values
        else:
            kind, start, vaddr, _paddr, filesz, memsz, flags, _align = values
        yield Segment(kind, flags, start, vaddr, filesz, memsz)


def _bytes_of(file: BinaryIO, segment: Segment) -> bytes:
    file.seek(segment.offset)
    return file.read(min(segment.filesz, _MOST_BYTES))


def _interpreter(file: BinaryIO, segments: tuple[Segment, ...]) -> str:
    for segment in segments:
        if segment.type == PT_INTERP:
            return _bytes_of(file, segment).split(b"\0")[0].decode("utf-8", "surrogateescape")
    return ""


def _build_id(file: BinaryIO, segments: tuple[Segment, ...], order: str) -> str:
    """Return the build-id as hexadecimal digits, empty if there is none. Source: elf(5), Notes (Nhdr)."""
    for segment in segments:
        if segment.type != PT_NOTE:
            continue
        notes, at = _bytes_of(file, segment), 0
        while at + 12 <= len(notes):
            name_size, size, kind = struct.unpack_from(order + "III", notes, at)
            start = at + 12 + _up(name_size, 4)
            if kind == NT_GNU_BUILD_ID and notes[at + 12 : at + 12 + name_size] == b"GNU\0":
                return notes[start : start + size].hex()
            at = start + _up(size, 4)
    return ""


def _down(address: int, page: int) -> int:
    return address & -page


def _up(address: int, page: int) -> int:
    return -(-address // page) * page
