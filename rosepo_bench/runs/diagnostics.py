"""What a record says beyond quality: how preference training went, and how good its oracle is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float64

from rosepo_bench.evaluation import statistics
from rosepo_bench.pipeline.smoothing import Smoothed
from rosepo_bench.preference.calibration import epsilon_gap, summary
from rosepo_bench.runs.cells import Cell
from rosepo_bench.runs.methods import Preference


def self_check(cell: Cell) -> dict[str, float] | None:
    """How far the evaluated model's log-probs over the token forest are from those of its own forward; None where no
    protocol went over the forest."""
    reports = (cell.task.stages.get(stage).report for stage in cell.answered.values())
    return next((report["self_check"] for report in reports if report.get("self_check")), None)


def preference(cell: Cell) -> dict[str, Any] | None:
    """Facts of preference training: its parts, ε, margins of held-out pairs before and after, and for how many users it
    changed the top item. None for other methods."""
    method = cell.method
    if not isinstance(method, Preference):
        return None
    assert cell.trained is not None
    get = cell.task.stages.get
    before, after = get(cell.reference)["validation"], get(cell.after)["validation"]
    mask = get(cell.pairing.rejected)["validation"].mask
    return {
        "pairs_seen": get(cell.trained).report["pairs_seen"],
        "sampler": method.sampler.name,
        "smoothing": method.smoothing.name,
        "rejected": method.rejected,
        "rounds": method.rounds,
        "loss": method.loss.name,
        "kernel": method.loss.kernel or "plain torch",
        "beta": getattr(method.loss, "beta", None),
        **{name: summary(values) for name, values in _epsilon(cell.smoothed).items()},
        "margin": {when: margin(logps, mask).as_dict() for when, logps in (("before", before), ("after", after))},
        "margin_accuracy": {
            when: margin_accuracy(logps, mask) for when, logps in (("before", before), ("after", after))
        },
        "changed_top": _changed_top(cell),
    }


def oracle(cell: Cell) -> dict[str, Any] | None:
    """The oracle's quality: its accuracy on uniform validation pairs, a temperature for each kind of the method's
    pairs, and the gap in mean ε between validation and training pairs, also for an oracle fitted without folds."""
    if not cell.probe:
        return None
    judging, get = cell.probe.judging, cell.task.stages.get
    probe = get(cell.probe.stage)
    kinds = get(judging.stage).temperatures
    return {
        "name": judging.smoothing.oracle.name,
        "accuracy": probe["accuracy"],
        "uniform": {key: value for key, value in probe.items() if key != "accuracy"},
        "temperatures": {kind: asdict(temperature) for kind, temperature in kinds.items()},
        **_epsilon_gaps(cell.smoothed),
    }


def _epsilon(smoothed: Smoothed) -> dict[str, Float64[np.ndarray, " values"]]:
    """ε of all rejected items, of training and validation pairs."""
    drawn = smoothed.stages.get(smoothed.pairing.rejected)
    names = {"epsilon": "train", "validation_epsilon": "validation"}
    return {name: smoothed.epsilon(part)[drawn[part].mask] for name, part in names.items()}


def _epsilon_gaps(smoothed: Smoothed) -> dict[str, dict[str, float]]:
    drawn, examples = smoothed.stages.get(smoothed.pairing.rejected), smoothed.pairing.examples
    users = np.broadcast_to(examples["train"].user[:, None], drawn["train"].mask.shape)[drawn["train"].mask]

    def gap(values: dict[str, Float64[np.ndarray, "n K"]]) -> dict[str, float]:
        validation, train = (values[part][drawn[part].mask] for part in ("validation", "train"))
        return epsilon_gap(validation, train, users).as_dict()

    parts = ("validation", "train")
    return {
        "epsilon_gap": gap({part: smoothed.epsilon(part) for part in parts}),
        "epsilon_gap_without_folds": gap({part: smoothed.unfolded_epsilon(part) for part in parts}),
    }


def margin(logps: Float64[np.ndarray, "n R"], mask: Any) -> statistics.Interval:
    """Mean over the pairs of the chosen title's log-prob minus the mean of its rejected ones'."""
    rejected = np.where(mask, logps[:, 1:], 0).sum(axis=1) / mask.sum(axis=1)
    return statistics.student(logps[:, 0] - rejected)


def margin_accuracy(logps: Float64[np.ndarray, "n R"], mask: Any) -> dict[str, float]:
    """Share of pairs whose chosen title has a higher log-prob than every rejected one."""
    right = int((logps[:, 0] > np.where(mask, logps[:, 1:], -np.inf).max(axis=1)).sum())
    return statistics.wilson(right, len(logps)).as_dict()


def _changed_top(cell: Cell) -> dict[str, float]:
    get, first = cell.task.stages.get, cell.protocols[0]
    test = cell.task.test
    found = [first.join(get(stage).answers, test) for stage in (cell.answered[first.name], cell.sft_answered)]
    after, before = (one.named if one.top is None else one.top for one in found)
    changed = np.asarray(after != before)
    return {"share": float(changed.mean()), "n": len(changed)}
