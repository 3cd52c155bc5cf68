"""Text from elsewhere (names, titles, reasons of failures, paths) as it may reach a terminal or a file."""

from __future__ import annotations

import re
import unicodedata

_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}
"""Control characters, halves of surrogate pairs, separators of lines and of paragraphs."""
_DIRECTIONS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def visible(text: str) -> str:
    r"""``text`` on one line, in which nothing moves the cursor, changes colours or turns the direction of writing: such
    characters are written as Python escapes, an ESC as ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(_escaped(one) if _unseen(one) else one for one in text)


def _unseen(letter: str) -> bool:
    return unicodedata.category(letter) in _UNSEEN or letter in _DIRECTIONS


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def one_line(text: str) -> str:
    """Visible text for reading: each run of blanks and line breaks is one blank."""
    return visible(" ".join(text.split()))


def comma_cell(text: str) -> str:
    """Visible text for a cell of a CSV file. What a spreadsheet would run as a formula gets an apostrophe in front, by
    which it is read as text; numbers stay as they are."""
    shown = visible(text)
    return f"'{shown}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(shown) else shown
