"""Errors for users."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Input that cannot be used: says what is wrong, where, and what to do. The command line exits with status 2."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: a known one that is a likely slip away from it, or all of them."""
    names = sorted(known)
    turned = [one for one in names if sorted(one) == sorted(name)]  # two letters changed places
    close = turned or difflib.get_close_matches(name, names, n=1, cutoff=0.72)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
