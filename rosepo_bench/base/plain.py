"""What a profile may hold, whatever its keys mean: short printable texts, numbers that fit, tables of a few levels."""

from __future__ import annotations

import math
import re
from typing import Any

from rosepo_bench.base.errors import UserError, shown

LARGEST = 10**15
DEEPEST = 16
LONGEST_KEY, LONGEST_TEXT = 200, 4000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_@-]{0,63}")
NAMING = "want 1 to 64 letters, digits, '-', '_' and '@', of which the first is a letter or digit; rename it"


def check_name(where: str, name: str) -> None:
    """Refuses a name that cannot name a folder, or that a terminal, a list of names or a dotted key would misread."""
    if not NAME.fullmatch(name):
        raise UserError(f"{where} {shown(name)}: {NAMING}")


def check_plain(value: Any, where: str = "", depth: int = 0) -> None:
    """UserError, beginning with the dotted key: a number too large or not finite, a text too long or with control
    characters, tables nested too deeply. ``where`` is the key of ``value``."""
    if depth > DEEPEST:
        raise UserError(f"{shown(where)}: nested more than {DEEPEST} levels deep, and no setting is")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_text(where or "configuration", str(key), LONGEST_KEY, "a key")
            check_plain(inner, f"{where}.{key}" if where else str(key), depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            check_plain(inner, where, depth + 1)
    elif isinstance(value, str):
        _check_text(where, value, LONGEST_TEXT, "a text")
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise UserError(f"configuration: {where} = {shown(value)}: want a number of at most 15 digits")
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"configuration: {where} = {value}: want a finite number")


def _check_text(where: str, text: str, longest: int, what: str) -> None:
    if len(text) > longest:
        raise UserError(f"{where}: {what} of {len(text)} characters, more than {longest}: {shown(text)}; shorten it")
    if not text.replace("\n", "").replace("\t", "").isprintable():
        raise UserError(f"{where}: {what} holds a character that cannot be printed: {shown(text)}; remove it")
