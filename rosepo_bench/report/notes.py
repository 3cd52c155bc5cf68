"""What a reader must know of the records of one section: sentences of its caption, names in them not yet escaped."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence

from rosepo_bench.report.markdown import distinct
from rosepo_bench.report.result import Result


def apart(terms: str, all_terms: list[str]) -> Iterator[str]:
    """How a section differs from the others of its data set."""
    if len(all_terms) > 1:
        tables, own = [json.loads(one) for one in all_terms], json.loads(terms)
        unequal = [name for name in own if any(table[name] != own[name] for table in tables)]
        here = "; ".join(f"{name} {json.dumps(own[name])}" for name in unequal)
        yield f"This data set has several sections whose numbers cannot be compared; in this one: {here}."


def mixed(members: list[Result]) -> Iterator[str]:
    """Methods should continue from the same SFT model: a note where they do not."""
    models: dict[int, set[str]] = {}
    for result in members:
        if "sft" in result["stages"]:
            models.setdefault(result.seed, set()).add(result["stages"]["sft"])
    for seed, keys in sorted(models.items()):
        if len(keys) > 1:
            yield f"The methods of seed {seed} start from {len(keys)} different SFT models."


def machines(members: list[Result]) -> Iterator[str]:
    """The same seed gives other numbers on another processor or torch: a note where they differ. What a record does not
    tell is left out."""
    for what, found in (
        ("processors", {one.processor for one in members}),
        ("torch versions", {one.torch for one in members}),
    ):
        if len(names := sorted(found - {""})) > 1:
            yield f"Records of different {what}: {', '.join(names)}."


def seeds(methods: Mapping[str, Sequence[Result]]) -> Iterator[str]:
    """Which seeds each row has, where not all have the same."""
    rows: dict[tuple[int, ...], list[str]] = {}
    for name, results in methods.items():
        rows.setdefault(tuple(one.seed for one in results), []).append(name)
    if len(rows) > 1:
        told = "; ".join(f"{seeds_in_words(found)}: {', '.join(names)}" for found, names in sorted(rows.items()))
        yield f"Not all methods were run with the same seeds. {told[0].upper()}{told[1:]}."


def seeds_in_words(found: Collection[int]) -> str:
    """``seed 0`` or ``seeds 0, 1``."""
    return f"seed{'s' * (len(found) > 1)} {distinct(found)}"
