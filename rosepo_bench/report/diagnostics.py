"""Tables of throughput, preference training and the preference oracle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from rosepo_bench.base.records import Record
from rosepo_bench.evaluation import statistics
from rosepo_bench.report.comparison import Comparison
from rosepo_bench.report.markdown import (
    NONE,
    distinct,
    escape,
    interval,
    number,
    paragraph,
    percent,
    quantity,
    table,
)


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def pooled(cells: Iterable[Mapping[str, float] | None]) -> statistics.Interval | None:
    """The mean of several seeds' proportions, with Wilson's interval for the n of one seed: seeds share users, so their
    counts must not be added up."""
    known = [cell for cell in cells if cell is not None]
    if not known:
        return None
    n = int(min(cell["n"] for cell in known))
    return statistics.wilson(float(np.mean([cell["value"] for cell in known])) * n, n)


def throughput(comparison: Comparison) -> str:
    """Rates and times: means over the seeds; memory: the maximum."""
    rows = []
    for name, records in comparison.methods.items():
        speed = [record["throughput"] for record in records]
        rates = [
            mean(one[rate] for one in speed) for rate in ("training_tokens_per_s", "pairs_per_s", "scoring_users_per_s")
        ]
        memory = max(one["peak_memory_bytes"] for one in speed) / 2**20
        seconds = [mean(one["seconds"].get(stage) for one in speed) for stage in ("training", "scoring")]
        machine = [distinct(one[key] for one in speed) for key in ("impl", "attention", "device", "threads")]
        rows.append([escape(name), *map(quantity, [*rates, memory]), *machine, *map(quantity, seconds)])
    header = [
        "method",
        "training tokens/s",
        "pairs/s",
        "scoring users/s",
        "peak MiB",
        "impl",
        "attention",
        "device",
        "threads",
    ]
    return table([*header, "training s", "scoring s"], rows, left=["method", "impl", "attention", "device"])


THROUGHPUT_CAPTION = paragraph(
    "Tokens that sequences share count once. Pairs/s and users/s are measured over whole calls, packing included.",
    "Peak memory: on a CPU that of the whole process, earlier work included; on a GPU that of allocations.",
)


def preference(comparison: Comparison) -> str:
    """Pairs, ε and margin accuracy; empty if there is no preference method."""
    rows = []
    for name, records in _having(comparison, "preference").items():
        found = [record["preference"] for record in records]
        settings = [distinct(one[key] for one in found) for key in ("sampler", "loss", "beta")]
        accuracy = [interval(pooled(one["margin_accuracy"][when] for one in found)) for when in ("before", "after")]
        changed = mean(one["changed_top"]["share"] for one in found)
        rows.append(
            [
                escape(name),
                *settings,
                quantity(mean(one["pairs_seen"] for one in found)),
                _epsilon(found, "epsilon"),
                _epsilon(found, "validation_epsilon"),
                *accuracy,
                percent(changed),
            ]
        )
    if not rows:
        return ""
    header = ["method", "sampler", "loss", "β", "pairs", "ε, training", "ε, validation"]
    header += ["accuracy before", "accuracy after", "top changed"]
    return table(header, rows, left=["method", "sampler", "loss"])


PREFERENCE_CAPTION = paragraph(
    "ε: mean ± standard deviation over pairs. Accuracy: share of held-out pairs whose chosen response has the higher",
    "log-prob, before and after preference training. Top changed: share of users whose top item differs from SFT's.",
)


def oracle(comparison: Comparison) -> str:
    """The oracle's accuracy and ε gaps; empty if no method uses it."""
    rows: list[list[str]] = []
    for name, records in _having(comparison, "oracle").items():
        found = [record["oracle"] for record in records]
        if not rows:  # the oracle itself, on pairs with uniform candidates
            tau = number(mean(one["uniform"]["tau"] for one in found), digits=2)
            ends = {end: mean(one["accuracy"][end] for one in found) or 0.0 for end in ("value", "low", "high")}
            accuracy = f"uniform {interval(ends)} (τ {tau})"
            rows.append(["the oracle", accuracy, *_gaps([one["uniform"] for one in found])])
        rows.append([escape(name), _by_kind(found), *_gaps(found)])
    if not rows:
        return ""
    header = ["pairs of", "accuracy and τ by kind of pair", "ε gap, cross-fitted", "ε gap, without folds"]
    return table(header, rows, left=header[:2])


def _gaps(found: list[dict[str, Any]]) -> list[str]:
    """Gaps and their intervals, averaged over the seeds: seeds share users, so the width does not shrink."""
    cells = []
    for key in ("epsilon_gap", "epsilon_gap_without_folds"):
        ends = {end: mean(one[key][end] for one in found) or 0.0 for end in ("value", "low", "high")}
        cells.append(interval(ends, signed=True))
    return cells


def _by_kind(found: list[dict[str, Any]]) -> str:
    """``semantic 0.71 (τ 1.2), …``: means over the seeds."""
    kinds = dict.fromkeys(kind for one in found for kind in one["temperatures"])
    cells = []
    for kind in kinds:
        fits = [one["temperatures"][kind] for one in found if kind in one["temperatures"]]
        accuracy, tau = (number(mean(fit[key] for fit in fits), digits=2) for key in ("accuracy", "tau"))
        cells.append(f"{kind} {accuracy} (τ {tau})")
    return escape(", ".join(cells))


ORACLE_CAPTION = paragraph(
    "Accuracy: share of held-out pairs, in random order, in which the oracle predicts the item that was taken next",
    "(guessing: 0.5), with the temperature τ fitted to them; first for uniform candidates, then for each kind of pair",
    "that a method trains on. ε gap: mean ε of validation pairs minus mean ε of training pairs; it is large for an",
    "oracle that has memorised the training pairs (without folds). The oracle's own row compares each user's",
    "validation step with their last training step. A method's training pairs reach further back in time, so their",
    "gap includes drift. Self-hard items are not drawn at random, so their ε omits the sampler's probabilities, which",
    "all others include.",
)


def _having(comparison: Comparison, part: str) -> dict[str, list[Record]]:
    """The methods whose records have ``part``, with those records."""
    found = ((name, [record for record in records if record[part]]) for name, records in comparison.methods.items())
    return {name: records for name, records in found if records}


def _epsilon(found: list[dict[str, Any]], name: str) -> str:
    known = [one[name] for one in found if one[name]]
    if not known:
        return NONE
    return f"{number(mean(one['mean'] for one in known))} ± {number(mean(one['sd'] for one in known))}"
