"""Text of others, made fit for a terminal: names, messages and notes may hold what a terminal obeys.

Escape sequences can hide and forge lines, set the window's title, or have the terminal type. Signs that turn
the direction of writing make a text read as another one. Both are shown by their numbers: `\\x1b`, `\\u202e`.
"""

from __future__ import annotations

import re

__all__ = ["one_line", "printable"]

# C0 but tab and newline, DEL, C1; marks of direction and separators of lines; halves of surrogate pairs.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_COLOUR = re.compile(
    "\x1b\\[[0-9;]*m"
)  # Keras writes in bold: harmless, and of no use without a terminal
_BREAK = re.compile("[\t\n]")


def printable(text: str) -> str:
    """Return the text with whatever a terminal would obey shown by its number, and colours taken away.

    Newlines and tabs stay.
    """
    return _OBEYED.sub(_number, _COLOUR.sub("", text))


def one_line(text: str) -> str:
    """Return the same for a name or a value, which stands in a line among others: newlines are numbers, too."""
    return _BREAK.sub(_number, printable(text))


def _number(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
