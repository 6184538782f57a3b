"""Lines that were broken at some width, as copies of terminals and mails are, made whole again.

In go lines, out come as many: the pieces of a broken line stand where its last one stood, the others are empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from replay.logs.prefix import EVENT, STRING, TRACER

_BEGINS: Final = TRACER + rb"(?:" + EVENT + rb"|strace: |Process [0-9]+ | [<>|]|\t|\Z|(?=\n))"
"""How a line begins that is no rest of another."""

_CALL_BEGINS: Final = TRACER + rb"[A-Za-z_]\w*\(|" + TRACER + rb"<\.\.\. \w+ resumed>"

_ENDS: Final = (
    rb"\) *= (?:0x[0-9a-f]+|-?[0-9]+(?!x)|\?|<void>|nil)[^()]*(?:\([^()]*(?:\([^()]*\)[^()]*)*\)[^()]*)*\Z"
    rb"|\.\.\.>\)? *(?:= \?)?\Z|\+\+\+\Z|---\Z"
)
"""How a whole line ends: with its result, whose notes are closed."""

_NUMBER_AT_END: Final = rb"(\w+)\((0x[0-9a-f]+|[^\n]*)\) *= (0x[0-9a-f]+)\Z"
_REST_OF_NUMBER: Final = rb"([0-9a-f]{1,15})(?: <[0-9.]+>)?\Z"
_OF_MEMORY: Final = rb"(?:brk|mmap2?|munmap|mprotect|mremap)\("
_REST_OF_HEX: Final = rb"x[0-9a-f]{5,16}(?: <[0-9.]+>)?\Z"
_ERROR: Final = rb"E[A-Z0-9]+(?: \(|\Z)"
_NOTICE: Final = rb"Process [0-9]+ [a-z]+(?: with [0-9]+ threads)?\Z"
_LONGEST_ADDRESS: Final = 16
_PAGE: Final = 4096


def wrapped_step(lines: bytes) -> Callable[[bytes], bytes] | None:
    """Return what joins the pieces of lines that were broken at some width, None where none seem to be."""
    if not re.search(rb"\n(?!" + _BEGINS + rb")[^\n]", lines) or not _is_wrapped(lines):
        return None
    width = _width_of(lines)
    return lambda data: joined(data, width)


def _width_of(lines: bytes) -> int:
    """Return at how many bytes lines were broken hard, 0 where that is not seen: the longest are equally long."""
    lengths = sorted(map(len, lines.splitlines()))
    return lengths[-1] if len(lengths) > 1 and lengths[-2] == lengths[-1] else 0


def _is_wrapped(lines: bytes) -> bool:
    """Tell whether some line is cut and whole together with what follows; a rest of a result alone does not tell."""
    texts = lines.splitlines()
    for place in range(len(texts) - 1):
        if (
            not re.match(_CALL_BEGINS, texts[place])
            or re.match(_BEGINS, texts[place + 1])
            or re.search(_NOTICE, texts[place])
        ):
            continue
        if _rest_of_number(texts[place], texts[place + 1]):
            return True
        whole = texts[place]
        for rest in texts[place + 1 : place + 4]:
            if _is_whole(whole) or re.match(_BEGINS, rest) or _is_behind_output(whole, rest):
                break
            whole += rest
            if _is_whole(whole):
                return True
    return False


_WIDTHS: Final = 60, 300
_ADDRESS_AT_END: Final = rb"(?m)^(?=[^\n]{%d}$)([^\n]*\) *= 0x)[0-9a-f]+$"


def cut_step(lines: bytes) -> Callable[[bytes], bytes] | None:
    """Return what takes the result off lines that were cut at some width, None where none are.

    Lines are cut where the longest ones are equally long and one of them, not the last line, is not whole: whether the
    result at the end of such a line is whole cannot be told, and a cut number is never believed. Heuristic.
    """
    texts = lines.splitlines()
    width = max(map(len, texts), default=0)
    longest = [text for text in texts[:-1] if len(text) == width]
    if not _WIDTHS[0] <= width <= _WIDTHS[1] or len(longest) < 2:
        return None
    if not any(not _is_whole(text) and re.match(_CALL_BEGINS, text) for text in longest):
        return None
    return lambda data: re.sub(_ADDRESS_AT_END % width, rb"\1", data)


def joined(lines: bytes, width: int = 0) -> bytes:
    """Return the lines with the pieces of each broken one where its last piece stood.

    A piece as long as `width` goes on with whatever follows that begins no line.
    """
    out: list[bytes] = []
    length = 0
    for text in lines.split(b"\n"):
        before = out[-1] if out else b""
        full = 0 < width == length and _may_go_on(before)
        if before and not re.match(_BEGINS, text) and (full or _goes_on(before, text)):
            out[-1] = b""
            out.append(before + text)
        else:
            out.append(text)
        length = len(text)
    return b"\n".join(out)


def _goes_on(line: bytes, rest: bytes) -> bool:
    """Tell whether `rest`, which begins no line, is the rest of `line`."""
    if not _may_go_on(line):
        return False
    if not _is_whole(line):
        return True
    number = re.search(_NUMBER_AT_END, line)
    if line.endswith(b"= 0") and re.match(_REST_OF_HEX, rest):
        return True
    return bool(number and re.match(_REST_OF_NUMBER, rest)) or bool(line.endswith(b"= -1") and re.match(_ERROR, rest))


def _may_go_on(line: bytes) -> bool:
    """Tell whether a line is of a call, and not broken by what strace says in the middle of it."""
    return re.match(_CALL_BEGINS, line) is not None and re.search(_NOTICE, line) is None


def _is_whole(line: bytes) -> bool:
    return re.search(_ENDS, re.sub(STRING, b'""', line)) is not None


def _is_behind_output(line: bytes, rest: bytes) -> bool:
    """Tell whether `rest` may be the end of a call whose line the program's own output broke, as that of `write`."""
    if re.match(TRACER + _OF_MEMORY, line):
        return False
    return rest.startswith(b")") or (rest.startswith(b" = ") and not line.endswith(b")"))


def _rest_of_number(line: bytes, rest: bytes) -> bool:
    """Tell whether the result of `line` is cut and goes on with `rest`.

    It is where it is no address that the call can have returned and both together are: a mapping is aligned to pages,
    MAP_FIXED and a break that was granted are what was asked for, and one break is as long a number as another.
    """
    if line.endswith(b") = 0") and re.match(_REST_OF_HEX, rest):
        return True
    found, more = re.search(_NUMBER_AT_END, line), re.match(_REST_OF_NUMBER, rest)
    if not (found and more):
        return False
    name, asked, result = found[1], found[2], found[3]
    whole = result + more[1]
    if len(whole) > _LONGEST_ADDRESS + 2:
        return False
    if name == b"brk":
        return len(whole) == len(asked) > len(result)
    if name not in (b"mmap", b"mmap2", b"mremap"):
        return False
    fixed = asked.split(b",")[0] == whole and b"MAP_FIXED" in asked
    return fixed or (int(result, 16) % _PAGE != 0 and int(whole, 16) % _PAGE == 0)
