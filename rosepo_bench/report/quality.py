"""Quality: the metrics of every method, and their paired differences."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from jaxtyping import Bool

from rosepo_bench.base.failures import Failure
from rosepo_bench.evaluation import statistics
from rosepo_bench.evaluation.metrics.base import metrics
from rosepo_bench.evaluation.significance import holm
from rosepo_bench.evaluation.statistics import Difference
from rosepo_bench.report.comparison import Comparison
from rosepo_bench.report.markdown import escape, paragraph, percent
from rosepo_bench.report.notes import seeds_in_words
from rosepo_bench.report.table import Block, Bullets, Cell, Form, Heading, Paragraph, Table

BASELINES = ("sft", "popularity")
NO_EFFECT = 0.01
"""A preference method that changed the top item of a smaller share of users is marked as having no effect."""

UNMATCHED = paragraph(
    "A difference uses the seeds that both methods have; the quality table averages each method over all of its own.",
)

HEADINGS = {"accuracy": "Quality", "harm": "Harm", "popularity": "Popularity and diversity"}
CAPTIONS = {
    "harm": paragraph(
        "Of free text as the model writes it, before any mapping to items. OUT-OF-CATALOGUE: it names no title of the",
        "catalogue. SEEN: it names an item of the user's history. VALID: it names exactly one title.",
    ),
    "popularity": paragraph(
        "Of the recommended items, right or wrong: the first one (@1), or the first ten of the catalogue (@10).",
        "ARP: mean training interactions. PERCENTILE: share of the catalogue that is less popular. APLT: share outside",
        "of the head, the fewest items with 80 % of the training interactions. LIFT: mean log(1 + training",
        "interactions) minus that of the target. COVERAGE: share of the catalogue recommended to anybody. GINI,",
        "ENTROPY: of how often items are recommended. ORRATIO: share of the three most recommended.",
    ),
}

WEAK = (
    "**Warning**: {name} does not clearly beat popularity (HR@1 {told}). What preference training adds to such a model "
    "says little about the method; train SFT longer first (settings sft.epochs, sft.min_steps, sft.lr)."
)


def quality(comparison: Comparison) -> list[Block]:
    """A table for each group of metrics; the first has a row for methods without a record too, and a list of the cells
    without one."""
    groups = comparison.groups or {"accuracy": []}
    blocks: list[Block] = []
    for place, (group, names) in enumerate(groups.items()):
        blocks += [Heading(HEADINGS[group], 3), _table(comparison, names, absent=place == 0)]
        if place == 0:
            lines = [_absent(name, one) for name, failures in comparison.absent.items() for one in failures]
            blocks += [Bullets(tuple(lines))] if lines else []
            blocks += [Paragraph(one) for one in weak(comparison)]
        if group in CAPTIONS:
            blocks.append(Paragraph(CAPTIONS[group]))
    return blocks


def _table(comparison: Comparison, names: list[str], *, absent: bool) -> Table:
    rows: list[list[Cell | str]] = []
    for name in comparison.names if absent else comparison.methods:
        if name in comparison.methods:
            cells = [measured(comparison, name, metric) for metric in names]
            rows.append([name, str(len(comparison.methods[name])), *(cells or [Cell()])])
        else:
            word = "failed" if any(failure.reason for failure in comparison.absent[name]) else "missing"
            rows.append([name, "0", word, *[Cell()] * (len(names) - 1)])
    header = [name.upper() for name in names] or ["result"]
    return Table.of(["method", "seeds", *header], rows, left=["method"])


def weak(comparison: Comparison) -> list[str]:
    """A warning for each SFT model that does not clearly beat popularity."""
    found = []
    for name, results in comparison.methods.items():
        gap = difference(comparison, name, "popularity", "hr@1") if results[0].method == "sft" else None
        if gap and gap.interval.low <= 0:
            told = "{value:+.3f} [{low:+.3f}, {high:+.3f}]".format(**gap.interval.as_dict())
            found.append(paragraph(WEAK.format(name=escape(name), told=told)))
    return found


def _absent(name: str, failure: Failure) -> str:
    return f"{name}, seed {failure.seed}: " + (f"failed: {failure.reason}" if failure.reason else "missing")


def measured(comparison: Comparison, name: str, metric: str) -> Cell:
    """A metric of a row as a cell."""
    results = comparison.methods[name]
    return Cell.of(overall(comparison, name, metric), **_sources(comparison, name, [one.seed for one in results]))


def _sources(comparison: Comparison, name: str, seeds: Collection[int]) -> dict[str, Any]:
    records = tuple(one.record.path for one in comparison.methods[name] if one.seed in seeds)
    return {"seeds": tuple(seeds), "records": records}


def overall(comparison: Comparison, name: str, metric: str) -> dict[str, Any] | None:
    """A metric with its interval. Where the users' values are not known, the mean of what the records say, with an
    interval for a single seed alone. None: a record of the row does not have it."""
    values = comparison.values(name, metric)
    if values is not None:
        return metrics()[metric].interval(*values)
    told = [one.metrics[metric] for one in comparison.methods[name] if metric in one.metrics]
    if len(told) < len(comparison.methods[name]):
        return None
    if len(told) == 1:
        return told[0]
    return {"value": float(np.mean([one["value"] for one in told])), "low": None, "high": None, "n": None}


def difference(comparison: Comparison, name: str, baseline: str, metric: str = "") -> Difference | None:
    """Paired difference to a baseline over the seeds that both have, in ``metric`` or the primary one. None if the row
    is of the baseline, if the baseline has no record, if the two have no seed in common, and if the users' values are
    not known."""
    metric = metric or comparison.primary
    base = comparison.baseline(name, baseline)
    seeds = comparison.shared_seeds(name, base) if base else []
    if not base or not seeds:
        return None
    first, second = (comparison.values(row, metric, seeds) for row in (name, base))
    if first is None or second is None:
        return None
    return statistics.difference(first, second)


def minus(comparison: Comparison, name: str, baseline: str, metric: str = "", form: Form = "signed") -> Cell:
    """The difference to a baseline as a cell."""
    found, base = difference(comparison, name, baseline, metric), comparison.baseline(name, baseline)
    if found is None or base is None:
        return Cell(form=form)
    seeds = comparison.shared_seeds(name, base)
    one, other = (_sources(comparison, row, seeds) for row in (name, base))
    return Cell.of(found.interval.as_dict(), form, seeds=tuple(seeds), records=one["records"] + other["records"])


def unmatched(comparison: Comparison) -> list[str]:
    """A line for each difference that leaves out seeds that only one of the two methods has."""
    pairs = ((name, comparison.baseline(name, base)) for name in comparison.methods for base in BASELINES)
    return [
        f"{name} minus {base}: {_unmatched(comparison, name, base)}"
        for name, base in pairs
        if base and comparison.seeds(name) != comparison.seeds(base)
    ]


def _unmatched(comparison: Comparison, name: str, base: str) -> str:
    """``seed 0, which both have; left out: seeds 1, 2 of sft``."""
    shared = comparison.shared_seeds(name, base)
    rest = {row: [seed for seed in comparison.seeds(row) if seed not in shared] for row in (name, base)}
    out = " and ".join(f"{seeds_in_words(seeds)} of {row}" for row, seeds in rest.items() if seeds)
    return f"{seeds_in_words(shared)}, which both have; left out: {out}" if shared else f"no seed in common ({out})"


def differences(comparison: Comparison) -> list[Block]:
    """Paired differences in the primary metric, with Holm's p and the effect size; its standard deviation over seeds
    and, if known, the metric without tied users."""
    untied, primary = comparison.untied(), comparison.primary
    bases = [base for base in BASELINES if any(results[0].method == base for results in comparison.methods.values())]
    header = ["method"]
    columns: list[list[Cell | str]] = [list(comparison.methods)]
    for base in bases:
        header += [f"{primary.upper()} minus {base}", f"p ({base})", f"d ({base})"]
        columns += [[minus(comparison, name, base) for name in comparison.methods], *_tests(comparison, base)]
    values = {name: comparison.values(name, primary) or [] for name in comparison.methods}
    header.append("sd over seeds")
    columns.append([Cell(statistics.seed_spread(own)) for own in values.values()])
    if untied is not None:
        header.append(f"{primary.upper()}, untied users")
        columns.append([Cell.of(_without(own, untied)) for own in values.values()])
    rows = list(zip(*columns, strict=True))
    blocks: list[Block] = [Table.of(header, rows, left=["method"])]
    if without := [f"{name}: {told}" for name in comparison.methods if (told := _effect(comparison, name))]:
        blocks.append(Bullets(tuple(without)))
    if lines := unmatched(comparison):
        blocks += [Paragraph(UNMATCHED), Bullets(tuple(lines))]
    return [*blocks, Paragraph(_power(comparison))]


def _without(seeds: statistics.Seeds, kept: Bool[np.ndarray, " n"]) -> dict[str, Any] | None:
    return statistics.mean([values[kept] for values in seeds]).as_dict() if seeds and kept.sum() > 1 else None


def _tests(comparison: Comparison, base: str) -> tuple[list[Cell | str], list[Cell | str]]:
    """p of each row's difference to a baseline, adjusted for the number of rows, and its effect size."""
    found = {name: difference(comparison, name, base) for name in comparison.methods}
    told = {name: one.p_value for name, one in found.items() if one}
    adjusted = dict(zip(told, holm(list(told.values())), strict=True))
    sizes = {name: one.effect_size if one else None for name, one in found.items()}
    return [Cell(adjusted.get(name), form="p") for name in found], [Cell(sizes[name], form="signed") for name in found]


def _effect(comparison: Comparison, name: str) -> str:
    found = [told for result in comparison.methods[name] if (told := result.diagnostics("preference"))]
    share = float(np.mean([one["changed_top"]["share"] for one in found])) if found else 1.0
    return "" if share >= NO_EFFECT else f"no effect: top item changed for {percent(share)} of users"


def _power(comparison: Comparison) -> str:
    """The smallest difference that this number of users can detect, from the comparisons of preference methods."""
    methods = {results[0].method for results in comparison.methods.values()}
    base = next((name for name in BASELINES if name in methods), None)
    tuned = [name for name, records in comparison.methods.items() if records[0]["family"] == "preference"]
    found = [difference(comparison, name, base) for name in tuned or comparison.methods] if base else []
    smallest = max((one.detectable for one in found if one), default=None)
    if smallest is None:
        return paragraph("There is no second method with the same seeds to compare with.")
    return paragraph(
        f"With these users and seeds a difference in {comparison.primary.upper()} from {escape(base or '')} smaller",
        f"than about {smallest:.3f} is likely to go undetected (80 % power, the widest interval of the",
        "preference methods)." if tuned else "methods).",
    )
