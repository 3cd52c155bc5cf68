"""What a header or a line that does not fit suggests: another separator or order of the columns, pandas' index."""

from __future__ import annotations

from collections.abc import Callable, Sequence

SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars", "::": "double colons", " ": "blanks"}
INDEX = "its first column is the index of a pandas table: write it with index=False"
Fits = Callable[[Sequence[str]], bool]


def other_separator(line: str, separator: str, fits: Fits) -> str:
    """A sentence if ``line`` fits once it is split at another separator; empty otherwise."""
    for other, name in SEPARATORS.items():
        if other != separator and fits([field.strip('" ') for field in line.split(other)]):
            return f"its columns are separated by {name}: write it with {SEPARATORS[separator]} instead"
    return ""


def of_header(line: str, separator: str, wanted: Sequence[str]) -> str:
    """A sentence on a header that lacks ``wanted`` or has them elsewhere."""

    def holds(names: Sequence[str]) -> bool:
        return set(wanted) <= set(names)

    names = [name.strip('" ') for name in line.split(separator)]
    if cause := other_separator(line, separator, holds):
        return cause
    if has_index(names):
        return INDEX
    if holds(names):
        what = "it has further columns" if names[: len(wanted)] == list(wanted) else "its columns are in another order"
        return f"{what}: make them {separator.join(wanted)}"
    lacking = ", ".join(name for name in wanted if name not in names)
    return f"it lacks the column{'s' if ',' in lacking else ''} {lacking}: its columns must be {separator.join(wanted)}"


def has_index(names: Sequence[str]) -> bool:
    """Whether the first column is the index that pandas writes unless told not to."""
    return names[0] in ("", "Unnamed: 0")
