"""Tables of throughput, preference training and the preference oracle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from rosepo_bench.evaluation import statistics
from rosepo_bench.report.comparison import Comparison
from rosepo_bench.report.markdown import NONE, distinct, number, paragraph, quantity
from rosepo_bench.report.result import Result
from rosepo_bench.report.table import Cell, Table


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


def throughput(comparison: Comparison) -> Table:
    """Rates and times: means over the seeds; memory: the maximum."""
    rates = {"tokens/s": "training_tokens_per_s", "pairs/s": "pairs_per_s", "users/s": "scoring_users_per_s"}
    rows: list[list[Cell | str]] = []
    for name, results in comparison.methods.items():
        speed = [result["throughput"] for result in results]
        numbers = [mean(one[rate] for one in speed) for rate in rates.values()]
        numbers.append(max(one["peak_memory_bytes"] for one in speed) / 2**20)
        machine = [distinct(one[key] for one in speed) for key in ("impl", "attention", "device", "threads")]
        seconds = [mean(one["seconds"].get(stage) for one in speed) for stage in ("training", "scoring")]
        rows.append([name, *_quantities(numbers, results), *machine, *_quantities(seconds, results)])
    header = ["method", *rates, "peak MiB", "impl", "attention", "device", "threads", "training s", "scoring s"]
    return Table.of(header, rows, left=["method", "impl", "attention", "device"])


def _quantities(values: Iterable[float | None], results: list[Result]) -> list[Cell]:
    return [Cell(value, form="quantity", **_sources(results)) for value in values]


def _sources(results: list[Result]) -> dict[str, Any]:
    return {"seeds": tuple(one.seed for one in results), "records": tuple(one.record.path for one in results)}


THROUGHPUT_CAPTION = paragraph(
    "Tokens/s are of training, users/s of scoring. Tokens that sequences share count once. Pairs/s and users/s are",
    "measured over whole calls, packing included.",
    "Peak memory: on a CPU that of the whole process, earlier work included; on a GPU that of allocations. Impl:",
    "compiled operators (cpp, cuda) or plain torch (reference). Attention: how the language model computes it.",
)


def pairs(comparison: Comparison) -> Table | None:
    """What preference methods are trained on; None if there is none."""
    rows: list[list[Cell | str]] = []
    for name, results in _having(comparison, "preference").items():
        found = [told for result in results if (told := result.diagnostics("preference"))]
        settings = [distinct(one.get(key, NONE) for one in found) for key in ("sampler", "loss", "beta", "rejected")]
        seen = mean(one["pairs_seen"] for one in found)
        rows.append([name, *settings, *_quantities([seen], results), _steps(results)])
    header = ["method", "sampler", "loss", "β", "K", "pairs", "steps"]
    return Table.of(header, rows, left=["method", "sampler", "loss"]) if rows else None


def _steps(results: list[Result]) -> str:
    """``157``, or ``best 94 of 157`` where training is watched; means over the seeds."""
    found = [result["training"] for result in results if result["training"]]
    steps = quantity(mean(one.get("planned_steps", one.get("steps")) for one in found))
    best = mean(one.get("best_step") for one in found)
    return steps if best is None else f"best {quantity(best)} of {steps}"


PAIRS_CAPTION = paragraph(
    "β: the loss's setting `beta`. K: rejected items of a pair. Steps: optimizer steps, and after how many of them the",
    "kept weights are from, where training is watched on validation users.",
)


def preference(comparison: Comparison) -> Table | None:
    """ε and margin accuracy; None if there is no preference method."""
    rows: list[list[Cell | str]] = []
    for name, results in _having(comparison, "preference").items():
        found = [told for result in results if (told := result.diagnostics("preference"))]
        accuracy = [pooled(one["margin_accuracy"][when] for one in found) for when in ("before", "after")]
        changed = mean(one["changed_top"]["share"] for one in found)
        rows.append(
            [
                name,
                _epsilon(found, "epsilon", results),
                _epsilon(found, "validation_epsilon", results),
                *(Cell.of(one.as_dict() if one else None, **_sources(results)) for one in accuracy),
                Cell(changed, form="percent", n=found[0]["changed_top"]["n"], **_sources(results)),
            ]
        )
    header = ["method", "ε, training", "ε, validation", "accuracy before", "accuracy after", "top changed"]
    return Table.of(header, rows, left=["method"]) if rows else None


PREFERENCE_CAPTION = paragraph(
    "ε: mean ± standard deviation over pairs. Accuracy: share of held-out pairs whose chosen response has a higher",
    "log-prob than every rejected one, before and after preference training. Top changed: share of users whose top",
    "item differs from SFT's.",
)


def watched(comparison: Comparison) -> Table | None:
    """What validation users said during training, and which weights were kept: means over the seeds. None if no
    training was watched."""
    rows: list[list[Cell | str]] = []
    for name, results in comparison.methods.items():
        found = [one["training"] for one in results if one["training"] and one["training"].get("validation")]
        if found:
            steps = [mean(one.get(key) for one in found) for key in ("planned_steps", "steps", "best_step")]
            looks = [dict(map(tuple, one["validation"])) for one in found]
            kept = mean(look.get(one.get("best_step")) for one, look in zip(found, looks, strict=True))
            last = mean(one["validation"][-1][1] for one in found)
            values = [Cell(value, **_sources(results)) for value in (kept, last)]
            rows.append([name, *_quantities(steps, results), *values])
    header = ["method", "planned steps", "steps", "kept step", "validation, kept", "validation, last"]
    return Table.of(header, rows, left=["method"]) if rows else None


WATCHED_CAPTION = paragraph(
    "Steps are the optimizer's. Validation: the metric of `validation.metric` on validation users, of the weights that",
    "were kept and at the last look.",
)


def oracle(comparison: Comparison) -> Table | None:
    """The oracle's accuracy and ε gaps; None if no method uses it. Methods under other settings may have others."""
    rows: list[list[Cell | str]] = []
    own: dict[tuple[object, ...], tuple[str, list[Cell]]] = {}
    for name, results in _having(comparison, "oracle").items():
        found = [told for result in results if (told := result.diagnostics("oracle"))]
        tau = number(mean(one["uniform"]["tau"] for one in found), digits=2)
        accuracy = Cell.of(_ends([one["accuracy"] for one in found]), before="uniform", after=f"(τ {tau})")
        judged = [accuracy, *_gaps([one["uniform"] for one in found], results)]  # pairs with uniform candidates
        own.setdefault(tuple((one.value, one.low, one.high, one.after) for one in judged), (name, judged))
        rows.append([name, _by_kind(found), *_gaps(found, results)])
    shared = len(own) == 1
    oracles: list[list[Cell | str]] = [
        ["the oracle" if shared else f"oracle of {name}", *judged] for name, judged in own.values()
    ]
    header = ["pairs of", "accuracy and τ by kind of pair", "ε gap, cross-fitted", "ε gap, without folds"]
    return Table.of(header, [*oracles, *rows], left=header[:2]) if rows else None


def _ends(told: list[dict[str, Any]]) -> dict[str, float | None]:
    """Value and ends of an interval, averaged over the seeds: seeds share users, so the width does not shrink."""
    return {end: mean(one.get(end) for one in told) for end in ("value", "low", "high")}


def _gaps(found: list[dict[str, Any]], results: list[Result]) -> list[Cell]:
    gaps = ("epsilon_gap", "epsilon_gap_without_folds")
    return [Cell.of(_ends([one[gap] for one in found]), "signed", **_sources(results)) for gap in gaps]


def _by_kind(found: list[dict[str, Any]]) -> str:
    """``semantic 0.71 (τ 1.2), …``: means over the seeds."""
    kinds = dict.fromkeys(kind for one in found for kind in one["temperatures"])
    cells = []
    for kind in kinds:
        fits = [one["temperatures"][kind] for one in found if kind in one["temperatures"]]
        accuracy, tau = (number(mean(fit[key] for fit in fits), digits=2) for key in ("accuracy", "tau"))
        cells.append(f"{kind} {accuracy} (τ {tau})")
    return ", ".join(cells)


ORACLE_CAPTION = paragraph(
    "Accuracy: share of held-out pairs, in random order, in which the oracle predicts the item that was taken next",
    "(guessing: 0.5), with the temperature τ fitted to them; first for uniform candidates, then for each kind of pair",
    "that a method trains on. ε gap: mean ε of validation pairs minus mean ε of training pairs; it is large for an",
    "oracle that has memorised the training pairs (without folds). The oracle's own row compares each user's",
    "validation step with their last training step. A method's training pairs reach further back in time, so their",
    "gap includes drift. Self-hard items are not drawn at random, so their ε omits the sampler's probabilities, which",
    "all others include.",
)


def _having(comparison: Comparison, part: str) -> dict[str, list[Result]]:
    """The methods whose records have ``part``, with those records."""
    found = ((name, [one for one in results if one.diagnostics(part)]) for name, results in comparison.methods.items())
    return {name: results for name, results in found if results}


def _epsilon(found: list[dict[str, Any]], name: str, results: list[Result]) -> Cell:
    known = [one[name] for one in found if one[name]]
    means, deviations = (mean(one[part] for one in known) for part in ("mean", "sd"))
    return Cell(means, sd=deviations, form="spread", **_sources(results))
