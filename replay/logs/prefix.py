"""What stands before an event on a line of strace or ltrace."""

from __future__ import annotations

from typing import Final

PREFIX: Final = rb"\n(?>[ 0-9:.]+|\[[^\]\n]*\]|(?<=[0-9])<[^>\n]*>|\(\+[ 0-9.]+\))*+"
