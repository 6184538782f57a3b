"""What is mapped in a space before its first call: rows of mappings, and the space that holds them.

In go the mappings of an image, as a maps file, a recording or the files of the program tell them, out come spaces.
Which calls come then is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Mapping as MappingOf
from typing import NamedTuple, TypeAlias

import numpy as np

from replay.calls.windows import CallWindows
from replay.engine.columns import NO_TEXT, NULL, Strings, to_signed
from replay.engine.records import Records
from replay.engine.structs import Value
from replay.linux.proc_maps import Mapping, prot_of
from replay.mm import fields
from replay.mm.space import ROOM, Space, space_of_rows
from replay.spaces.processes import Processes, SpaceLife
from replay.spaces.results import BEFORE_TRACE


class Image(Value):
    """The mappings of a space when it began; `origin` is one of `ORIGINS` of the address space, as a code.

    `told_by` are the files that they were inferred from, `misfit` the file that is not the one that ran, if any.
    """

    mappings: Sequence[Mapping]
    origin: int = fields.ORIGIN_MAPS
    told_by: tuple[str, ...] = ()
    misfit: str = ""


Images: TypeAlias = Callable[[CallWindows, Processes], MappingOf[int, Image]]
"""Tells the images of those spaces of a run whose beginning it knows, by the number of the space."""


def no_images(_windows: CallWindows, _who: Processes) -> dict[int, Image]:
    """Return no image: only calls tell what is mapped."""
    return {}


def first_image(mappings: Sequence[Mapping]) -> Images:
    """Return the images of a maps file: it is of the first space."""
    return lambda _windows, _who: {0: Image(mappings)}


def first_known(better: Images, other: Images) -> Images:
    """Return the images that `better` knows, and of the other spaces those that `other` does."""
    return lambda windows, who: {**other(windows, who), **better(windows, who)}


def images_at(lines: MappingOf[int, Sequence[Mapping]]) -> Images:
    """Return the images of a recording, which tells what was mapped by the lines of the execves."""

    def images(_windows: CallWindows, who: Processes) -> dict[int, Image]:
        begun = ((life.space, lines.get(life.born_clock)) for life in who.lives if life.origin == "exec")
        return {space: Image(mappings) for space, mappings in begun if mappings is not None}

    return images


class Seeded(NamedTuple):
    """A space as its image makes it, and rows of the mappings that lie in the kernel's half, which no call reaches."""

    space: Space
    kernel_rows: Records


def seeded(image: Image, life: SpaceLife, strings: Strings) -> Seeded:
    """Return the space of an image; [heap] tells the break up to its page."""
    rows = _rows_of(image, strings, life.born_clock if life.origin == "exec" else NULL)
    space = space_of_rows(rows[rows["start"] >= 0], ROOM)
    heap = [mapping for mapping in image.mappings if mapping.path == "[heap]"]
    if heap:
        space.state.start_brk, space.state.brk = heap[0].start, heap[-1].end
    return Seeded(space, rows[rows["start"] < 0])


def _rows_of(image: Image, strings: Strings, clock: int) -> Records:
    """Return rows (as `space.live_rows`) of the mappings of an image, there since line `clock`."""
    rows = np.full(len(image.mappings), NULL, fields.RECTANGLE)
    for number, mapping in enumerate(image.mappings):
        row: fields.Rectangle = rows[number]
        is_file = mapping.path.startswith("/")
        named = is_file or (mapping.path and mapping.path != "[heap]")
        row.prot = prot_of(mapping.perms)
        row.shared = mapping.perms.endswith("s")
        row.kind = _kind_of(mapping, image.origin)
        row.path = strings.intern(mapping.path) if mapping.path else NO_TEXT
        row.backing = row.path if named else NO_TEXT
        row.offset = mapping.offset if is_file else NULL
        row.origin = image.origin
        row.made_step = row.born_step = BEFORE_TRACE
        row.born_line = clock
        row.flags = fields.MAP_GROWSDOWN if mapping.path == "[stack]" else 0
        row.start, row.end = to_signed(mapping.start), to_signed(mapping.end)
    return rows


def _kind_of(mapping: Mapping, origin: int) -> int:
    if mapping.path == "[heap]":
        return fields.KIND_BRK
    if mapping.path.startswith("[stack"):
        return fields.KIND_STACK
    if mapping.path.startswith("[v"):
        return fields.KIND_SPECIAL
    if mapping.path.startswith(("/SYSV", "/dev/zero (deleted)")):
        return fields.KIND_SHM
    if origin == fields.ORIGIN_INFERRED:
        return fields.KIND_IMAGE
    return fields.KIND_FILE if mapping.path.startswith("/") else fields.KIND_ANON
