"""Records as the runner writes them, with made-up ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rosepo_bench.base import records
from rosepo_bench.base.failures import Failure
from rosepo_bench.base.record_schema import row_of
from rosepo_bench.base.records import Record
from rosepo_bench.base.seeds import digest
from rosepo_bench.evaluation import statistics
from rosepo_bench.evaluation.metrics.base import Predictions
from rosepo_bench.evaluation.metrics.base import measure as measure_all

FAMILY = {
    "popularity": "popularity",
    "sasrec": "recommender",
    "zero_shot": "language_model",
    "sft": "language_model",
}


Json = dict[str, Any]
PROTOCOL = "candidates-sum"


def measure(rank: np.ndarray) -> Json:
    """What a record says of these ranks."""
    return measure_all(Predictions(np.arange(len(rank)), rank), {"rank"})


def ranks(first: int, users: int = 100) -> np.ndarray:
    """``first`` users with rank 1, a tenth with rank 3, a tenth with rank 8, the others 15."""
    rank = np.full(users, 15, np.int32)
    rank[:first], rank[first : first + users // 10], rank[first + users // 10 : first + users // 5] = 1, 3, 8
    return rank


def preference(users: int, **changes: Any) -> dict[str, Any]:
    histogram = {"mean": 0.2134, "sd": 0.0811, "edges": [0.0, 0.25, 0.5], "counts": [3, 1]}
    before, after = (statistics.wilson(hits, 1000).as_dict() for hits in (510, 640))
    return {
        "pairs_seen": 2000,
        "sampler": "self_hard",
        "loss": "cdpo",
        "beta": 1.0,
        "rejected": 1,
        "epsilon": histogram,
        "validation_epsilon": {**histogram, "mean": 0.22},
        "margin_accuracy": {"before": before, "after": after},
        "changed_top": {"share": 0.25, "n": users},
        **changes,
    }


def around(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 1000}


def oracle() -> dict[str, Any]:
    accuracy = statistics.wilson(600, 1000).as_dict()
    fit = {"tau": 1.234, "accuracy": 0.58, "low": 0.55, "high": 0.61, "n": 1000}
    gaps = {"epsilon_gap": around(0.012), "epsilon_gap_without_folds": around(0.171)}
    uniform = {"tau": 0.9, "epsilon_gap": around(0.005), "epsilon_gap_without_folds": around(0.061)}
    return {"accuracy": accuracy, "uniform": uniform, "temperatures": {"self_hard": fit}, **gaps}


def evaluation(rank: np.ndarray, size: int = 20, score: str = "sum") -> Json:
    return {"facts": {"name": "candidates", "size": size, "score": score}, "metrics": measure(rank)}


def record(method: str, rank: np.ndarray, data: Json | None = None, **changes: Any) -> Json:
    """A whole record with its ranks; ``changes`` replace top-level fields, ``data`` is merged. ``told`` and ``oracle``
    are its diagnostics; its key and row are made from method, settings, data and seed."""
    family, seed = FAMILY.get(method, "preference"), changes.get("seed", 0)
    trained, tuned = family != "popularity", family == "preference"
    settings = changes.get("settings", {})
    told = changes.pop("told", preference(len(rank)) if tuned else None)
    judged = changes.pop("oracle", None)
    return {
        "key": digest(method, seed, settings, data or {}, changes.get("profile", "")),
        "row": row_of(method, settings, {}),
        "dataset": "movielens",
        "method": method,
        "family": family,
        "seed": 0,
        "profile": "demo",
        "settings": {},
        "config": {},
        "data": {
            "source": "ml-100k",
            "kind": "real",
            "files": [{"name": "u.data", "bytes": 10, "sha256": "f" * 64}],
            "counts": {"raw": {"users": len(rank)}},
            "digest": "d" * 64,
            "split": "leave_one_out",
            "tied_share": 0.44,
            "candidates_sha256": "c" * 64,
            "users": len(rank),
            **(data or {}),
        },
        "training": {"steps": 157, "planned_steps": 157, "best_step": None} if tuned else None,
        "evaluations": {PROTOCOL: evaluation(rank)},
        "diagnostics": {"preference": told, "oracle": judged},
        "throughput": {
            "training_tokens_per_s": 12345.6 if trained else None,
            "pairs_per_s": 41.26 if tuned else None,
            "scoring_users_per_s": 9.44,
            "peak_memory_bytes": 512 * 2**20,
            "impl": "cpp" if tuned else "-",
            "attention": "forest" if tuned else "-",
            "device": "cpu",
            "threads": 2,
            "seconds": {"training": 61.2, "scoring": 4.5} if trained else {"scoring": 0.04},
        },
        "environment": {},
        "stages": {"sft": f"sft-{seed}"} if tuned else {},
        **changes,
        "rank": rank,
    }


def write(out: Path, made: Json, **arrays: np.ndarray) -> Path:
    """One record on disk, its predictions with ``arrays`` beside the ranks."""
    rank = made.pop("rank")
    given = {"users": np.arange(len(rank)), "rank": rank, **arrays}
    return records.write_record(out, made, dict.fromkeys(made["evaluations"], given))


def read_back(out: Path, *made: Json, tied: np.ndarray | None = None) -> list[Record]:
    """The records as they come from disk."""
    for one in made:
        write(out, one, **({} if tied is None else {"tied": tied}))
    found, problems = records.read_records(out)
    assert problems == []
    return found


def failure(dataset: str, method: str, seed: int = 0, reason: str = "", **settings: Any) -> Failure:
    return Failure(dataset, method, seed, reason, "k" * 64, settings, created="2100" if reason else "")
