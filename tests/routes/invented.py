"""Made-up records in which no two numbers are alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from by_hand import student, wilson

from rosepo_bench.base.record_schema import row_of
from rosepo_bench.base.records import write_record

FAMILIES = {"popularity": "recommender", "sasrec": "recommender", "sft": "language_model"}
METHODS = ("popularity", "sasrec", "sft", "dpo", "rosepo")
DATASETS = ("games", "movies")
USERS = 60
PROTOCOL = "candidates-sum"
KINDS = ("popularity", "self_hard")
METRICS = ("hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10")
TOLD = [(dataset, method, 3) for dataset in DATASETS for method in METHODS]


class Numbers:
    """Numbers between 0 and 1 that differ in their third decimal: 0.137, 0.274, … over all records."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> float:
        self.count += 1
        return (self.count * 137 % 997) / 1000 + 0.001

    def around(self, n: int) -> dict[str, float]:
        """A value whose ends lie at different distances."""
        value = self()
        return {"value": value, "low": value - 0.0113 - self.count / 1e4, "high": value + 0.0231, "n": n}


def gain(rank: np.ndarray, k: int) -> np.ndarray:
    return np.where(rank <= k, 1 / np.log2(1 + rank), 0)


def value_of(metric: str, rank: np.ndarray) -> np.ndarray:
    """A metric of each user, from its definition."""
    name, k = metric.split("@")
    return (rank <= int(k)).astype(float) if name == "hr" else gain(rank, int(k))


def interval_of(values: np.ndarray) -> dict[str, float]:
    shares = set(np.unique(values)) <= {0.0, 1.0}
    low, high = wilson(int(values.sum()), len(values)) if shares else student(values)
    return {"value": float(values.mean()), "low": max(low, 0.0), "high": min(high, 1.0), "n": len(values)}


def invented(dataset: str, method: str, seed: int, rank: np.ndarray, draw: Numbers) -> dict[str, Any]:
    """A record with a number of its own in every place."""
    family = FAMILIES.get(method, "preference")
    tuned, n = family == "preference", 1000 + draw.count
    speed = {name: 1000 * draw() + 0.4 for name in ("training_tokens_per_s", "pairs_per_s", "scoring_users_per_s")}
    told = {
        "pairs_seen": 2000 + draw.count,
        "sampler": f"sampler-{dataset}-{method}",
        "loss": f"loss-{dataset}-{method}",
        "beta": round(draw(), 3),
        "rejected": 1 + draw.count,
        **{name: {"mean": draw() / 2, "sd": draw(), "edges": [], "counts": []} for name in EPSILONS},
        "margin_accuracy": {when: draw.around(n) for when in ("before", "after")},
        "changed_top": {"share": draw(), "n": n + 1},
    }
    gaps = ("epsilon_gap", "epsilon_gap_without_folds")
    oracle = {
        "accuracy": draw.around(n + 2),
        "uniform": {"tau": 8 * draw(), **{gap: draw.around(n + 3) for gap in gaps}},
        "temperatures": {
            kind: {"tau": 8 * draw(), "accuracy": draw(), "low": draw(), "high": draw(), "n": n + 4} for kind in KINDS
        },
        **{gap: draw.around(n + 5) for gap in gaps},
    }
    data = {"source": f"source-{dataset}", "kind": "real", "digest": dataset, "split": f"split-{dataset}"}
    evaluation = {
        "facts": {"name": "candidates", "size": 20 + len(dataset), "score": "sum"},
        "metrics": {metric: interval_of(value_of(metric, rank)) for metric in METRICS},
    }
    return {
        "key": f"{dataset}{method}{seed}".encode().hex(),
        "row": row_of(method, {}, {}),
        "dataset": dataset,
        "method": method,
        "family": family,
        "seed": seed,
        "profile": f"profile-{dataset}",
        "settings": {},
        "config": {},
        "environment": {},
        "data": {**data, "tied_share": draw(), "candidates_sha256": f"{dataset}-hash-of-lists", "users": len(rank)},
        "training": {"planned_steps": 1200 + draw.count, "best_step": 200 + draw.count if method == "rosepo" else None}
        if tuned
        else None,
        "evaluations": {PROTOCOL: evaluation},
        "diagnostics": {"preference": told if tuned else None, "oracle": oracle if method == "rosepo" else None},
        "throughput": {
            **speed,
            "peak_memory_bytes": int(1e9 * draw()),
            **{key: f"{key}-{dataset}-{method}" for key in ("impl", "attention", "device")},
            "threads": draw.count,
            "seconds": {name: 100 * draw() + 0.04 for name in ("training", "scoring", "cell")},
        },
        "stages": {},
    }


EPSILONS = ("epsilon", "validation_epsilon")


def made(out: Path) -> tuple[dict[tuple[str, str, int], dict[str, Any]], dict[tuple[str, str, int], np.ndarray]]:
    """Two data sets, five methods, one seed: records on disk, and what is in them."""
    draw, records, ranks = Numbers(), {}, {}
    for number, (dataset, method, seed) in enumerate(TOLD):
        rank = np.random.default_rng(number).permutation(np.arange(USERS) % (8 + number)).astype(np.int32) + 1
        ranks[dataset, method, seed] = rank
        one = records[dataset, method, seed] = invented(dataset, method, seed, rank, draw)
        arrays = {"users": np.arange(USERS) * 3, "rank": rank, "tied": np.arange(USERS) % 3 == 0}
        write_record(out, one, {PROTOCOL: arrays})
    return records, ranks
