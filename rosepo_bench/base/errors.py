"""Errors for users."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

LONGEST, PATH, MANY = 60, 300, 40
"""Characters of a value and of a path, and number of known names, that an error shows."""
NUMBER = re.compile(r"\d+")


class UserError(ValueError):
    """Input that cannot be used: says what is wrong, where, and what to do. The command line exits with status 2."""


@contextmanager
def of_dataset(name: str) -> Iterator[None]:
    """A UserError from within begins with the data set's name in the profile, which code below does not know."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"data set {name}: {error}" if name else str(error)) from error


def shown(value: Any, *, longest: int = LONGEST) -> str:
    """A value as errors show it: as Python writes it, control characters escaped, and cut where it is longer."""
    try:
        text = repr(value[: 2 * longest] if isinstance(value, str) else value)
    except (ValueError, RecursionError):  # Python does not write numbers of thousands of digits, or endless nesting
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= longest else f"{text[:longest]}…"


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: a known one that is a likely slip away from it, or all of them. Who
    writes another number means another thing."""
    names = sorted(known)
    turned = [one for one in names if sorted(one) == sorted(name)]  # two letters changed places
    alike = {one.lower(): one for one in names if NUMBER.findall(one) == NUMBER.findall(name)}
    close = turned or [alike[one] for one in difflib.get_close_matches(name[:LONGEST].lower(), alike, n=1, cutoff=0.8)]
    if close:
        return f"did you mean {close[0]!r}?"
    more = f" and {len(names) - MANY} more" if len(names) > MANY else ""
    return f"known: {', '.join(names[:MANY])}{more}" if names else "none is known"
