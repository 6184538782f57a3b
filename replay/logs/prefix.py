"""What stands before an event on a line of strace or ltrace: pid, security context, times, call number, address.

Who only asks where the event begins takes everything that may stand there, in any order (`IN_PREFIX`, `PREFIX`). Who
must know that nothing else stands there goes by what the tracers print (`TRACER`); what each part says is for the
grammars.
"""

from __future__ import annotations

from typing import Final

IN_PREFIX: Final = b" 0123456789:."
"""The bytes of pids and times, which may stand in a prefix outside of brackets."""

PREFIX: Final = rb"(?>[" + IN_PREFIX + rb"]+|\[[^\]\n]*\]|(?<=[0-9])<[^>\n]*>|\(\+[ 0-9.]+\))*+"
"""A pattern of whatever stands before an event: numbers, and what is in brackets."""

_PID: Final = rb"(?:\[pid +[0-9]+(?:<[^>\]\n]*>)?\] |[0-9]{1,8}(?:<[^>\n]*>)? +)?"
_CONTEXT: Final = rb"(?:\[[A-Za-z_][\w:.,!-]*\] )?"
_ABSOLUTE: Final = rb"(?:(?:[0-9]{2}:[0-9]{2}:[0-9]{2}|[0-9]{9,})(?:\.[0-9]+)? )?"
_RELATIVE: Final = rb"(?: {0,5}[0-9]+\.[0-9]+ |(?= {5}[0-9] | {4}[0-9]{2} | {3}[0-9]{3} ) +[0-9]+ |\(\+ *[0-9.]+\) )?"
_NUMBER: Final = rb"(?:\[ *[0-9]+\] )?"
_ADDRESS: Final = rb"(?:\[(?:[0-9a-f ]{15}[0-9a-f]|[0-9a-f]{8}|\?+|0x[0-9a-f]+|\(nil\))\] )?"

TRACER: Final = _PID + _CONTEXT + _RELATIVE + _ABSOLUTE + _RELATIVE + _NUMBER + _ADDRESS
"""A pattern of what strace or ltrace themselves print before an event, which may be nothing.

A thread's name in brackets (`strace -Y`) is one without a bracket: the first one ends them for whoever passes over.

Source: strace.c, printleader; ltrace's output.c, begin_of_line.
"""

EVENT: Final = rb"(?:[A-Za-z_?][\w?@.>-]*(?:\(|->)|operator |<\.\.\. |\+\+\+ |--- |\[ Process )"
"""How an event begins, roughly: with a name, or a mark."""

STRING: Final = rb'"(?:[^"\\\n]++|\\.)*+"'
"""A quoted string, whose own quotes have a backslash."""

COLOUR: Final = rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\n]*\x07"
"""What steers a terminal: colours (`strace --color`), `\\e[K` of `grep --color`, titles. Source: ECMA-48, 5.4."""
