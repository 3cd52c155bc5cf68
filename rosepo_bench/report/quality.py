"""Quality: the metrics of every method, and their paired differences."""

from __future__ import annotations

import numpy as np

from rosepo_bench.base.intervals import Interval
from rosepo_bench.evaluation import statistics
from rosepo_bench.evaluation.metrics import METRICS
from rosepo_bench.report.comparison import Comparison
from rosepo_bench.report.markdown import (
    NONE,
    bullets,
    distinct,
    escape,
    interval,
    number,
    paragraph,
    percent,
    table,
)

BASELINES = ("sft", "popularity")
NO_EFFECT = 0.01
"""A preference method that changed the top item of a smaller share of users is marked as having no effect."""

DRAWS = {"candidates": "the others drawn uniformly"}
UNMATCHED = paragraph(
    "Not all methods were run with the same seeds. A difference uses the seeds that both methods have; the quality",
    "table averages each method over all of its own.",
)
SYNTHETIC = "**Synthetic data**: a replica stands in for the data set; its numbers say nothing about the real one."


def heading(comparison: Comparison) -> str:
    """``## movielens``; synthetic data are labelled."""
    return f"## {escape(comparison.title)}" + (": synthetic data" if comparison.synthetic else "")


def caption(comparison: Comparison) -> str:
    """Data, users, split, protocol, seeds and ties, without which no number should be quoted."""
    if not comparison.records:
        return "No record."
    first = comparison.records[0]
    data, protocol = first["data"], first["protocol"]
    draw = DRAWS.get(protocol["name"], "see the protocol's description")
    sources = distinct(record["data"]["source"] for record in comparison.records)
    seeds = sorted({record.seed for record in comparison.records})
    return paragraph(
        SYNTHETIC if comparison.synthetic else "",
        f"Source {sources}, {len(comparison.users):,} test users, split `{data['split']}`,",
        f"profile `{first['profile']}`, {_seeds(seeds)}.",
        f"Protocol `{protocol['name']}`: the target among {protocol['size']} candidates, {draw}",
        f"(sha256 {data['candidates_sha256'][:12]}); language models rank by the {protocol['score']} of a",
        "title's token log-probs.",
        _ties(data["tied_share"]),
        escape(comparison.note),
    )


def _ties(share: float | None) -> str:
    if not share:
        return ""
    return f"For {percent(share)} of the users the last events have the same time: file order determines the target."


def quality(comparison: Comparison) -> str:
    """The table of metrics, with a row for methods without a record too, and a list of the cells without one."""
    rows = []
    for name in comparison.names:
        if name in comparison.methods:
            cells = [interval(overall(comparison, name, metric)) for metric in METRICS]
            rows.append([escape(name), str(len(comparison.methods[name])), *cells])
        else:
            failed = any(reason for _, method, _, reason in comparison.failures if method == name)
            word = "failed" if failed else "missing"
            rows.append([escape(name), "0", word, *[NONE] * (len(METRICS) - 1)])
    parts = [table(["method", "seeds", *(metric.upper() for metric in METRICS)], rows, left=["method"])]
    if comparison.failures:
        parts.append(
            bullets(
                f"{escape(method)}, seed {seed}: " + (f"failed: {escape(reason)}" if reason else "missing")
                for _, method, seed, reason in comparison.failures
            )
        )
    return "\n\n".join(parts)


def overall(comparison: Comparison, method: str, metric: str) -> Interval:
    """A metric with its interval over users; each user's value is averaged over the seeds."""
    return statistics.average(statistics.over_seeds(comparison.values(method, metric)))


def difference(comparison: Comparison, method: str, baseline: str, metric: str = "hr@1") -> Interval | None:
    """Paired difference to a baseline over the seeds that both have, averaged over seeds and then over users. None if
    the method is the baseline, if the baseline has no record, and if the two have no seed in common."""
    if method == baseline or baseline not in comparison.methods:
        return None
    seeds = comparison.shared_seeds(method, baseline)
    if not seeds:
        return None
    first, second = (statistics.over_seeds(comparison.values(name, metric, seeds)) for name in (method, baseline))
    return statistics.paired(first, second)


def unmatched(comparison: Comparison) -> list[str]:
    """A line for each difference that leaves out seeds that only one of the two methods has."""
    return [
        f"{escape(method)} minus {baseline}: {_unmatched(comparison, method, baseline)}"
        for method in comparison.methods
        for baseline in BASELINES
        if baseline in comparison.methods and comparison.seeds(method) != comparison.seeds(baseline)
    ]


def _unmatched(comparison: Comparison, method: str, baseline: str) -> str:
    """``seed 0, which both have; left out: seeds 1, 2 of sft``."""
    shared = comparison.shared_seeds(method, baseline)
    rest = {name: [seed for seed in comparison.seeds(name) if seed not in shared] for name in (method, baseline)}
    out = " and ".join(f"{_seeds(seeds)} of {escape(name)}" for name, seeds in rest.items() if seeds)
    return f"{_seeds(shared)}, which both have; left out: {out}" if shared else f"no seed in common ({out})"


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {distinct(seeds)}"


def differences(comparison: Comparison) -> str:
    """Paired differences in HR@1, its standard deviation over seeds and, if known, HR@1 without tied users."""
    untied = comparison.untied()
    header = ["method", *(f"HR@1 minus {name}" for name in BASELINES), "sd over seeds"]
    header += [] if untied is None else ["HR@1, untied users"]
    rows = []
    for name in comparison.methods:
        values = comparison.values(name, "hr@1")
        row = [escape(name), *(interval(difference(comparison, name, base), signed=True) for base in BASELINES)]
        row.append(number(statistics.seed_spread(values)))
        if untied is not None:
            rest = statistics.over_seeds(values)[untied]
            row.append(interval(statistics.average(rest) if len(rest) > 1 else None))
        rows.append([*row, _effect(comparison, name)])
    parts = [table([*header, "note"], rows, left=["method", "note"])]
    if lines := unmatched(comparison):
        parts += [UNMATCHED, bullets(lines)]
    return "\n\n".join([*parts, _power(comparison)])


def _effect(comparison: Comparison, method: str) -> str:
    found = [record["preference"] for record in comparison.methods[method] if record["preference"]]
    share = float(np.mean([one["changed_top"]["share"] for one in found])) if found else 1.0
    return "" if share >= NO_EFFECT else f"no effect: top item changed for {percent(share)} of users"


def _power(comparison: Comparison) -> str:
    """The smallest difference that this number of users can detect, from the comparisons of preference methods."""
    base = next((name for name in BASELINES if name in comparison.methods), None)
    tuned = [name for name, records in comparison.methods.items() if records[0]["family"] == "preference"]
    found = [difference(comparison, name, base) for name in tuned or comparison.methods] if base else []
    smallest = max((statistics.detectable(one) for one in found if one), default=None)
    if smallest is None:
        return paragraph("There is no second method with the same seeds to compare with.")
    return paragraph(
        f"With these users a difference in HR@1 from {base} smaller than about {smallest:.3f} is likely to",
        "go undetected (80 % power, the widest interval of the",
        "preference methods)." if tuned else "methods).",
    )
