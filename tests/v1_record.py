"""A record as the first version of this program wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

KEY = "67616d6573726f7365706f33"
NDCG = 0.7777777777777778


def whole() -> dict[str, Any]:
    """Of RosePO, seed 3; the first two of three users' targets are in the first place, the last one's in the
    seventh."""
    share = {"value": 2 / 3, "low": 0.2, "high": 0.9, "n": 3}
    around = {"value": 0.137, "low": 0.1, "high": 0.2, "n": 1000}
    spread = {"mean": 0.2, "sd": 0.1, "edges": [], "counts": []}
    gaps = {"epsilon_gap": around, "epsilon_gap_without_folds": around}
    return {
        "schema": 1,
        "key": KEY,
        "dataset": "games",
        "method": "rosepo",
        "family": "preference",
        "seed": 3,
        "profile": "demo",
        "config": {
            "dataset": {"source": "games", "candidates": 25},
            "threads": 2,
            "batch_tokens": 2048,
            "model": {"name": "tiny"},
            "prompt": {"history": 19},
            "sft": {"lr": 0.003},
            "preference": {"beta": 1.0},
            "sasrec": {"epochs": 10},
            "oracle": {"folds": 2},
            "scoring": {"score": "sum"},
        },
        "data": {
            "source": "games",
            "kind": "real",
            "files": [],
            "counts": {},
            "digest": "d" * 64,
            "split": "leave_one_out",
            "tied_share": 0.25,
            "candidates_sha256": "c" * 64,
            "users": 3,
        },
        "protocol": {"name": "candidates", "size": 25, "score": "sum"},
        "metrics": {"hr@1": share, "ndcg@10": {"value": NDCG, "low": 0.1, "high": 1.0, "n": 3}},
        "preference": {
            "pairs_seen": 2000,
            "sampler": "mixed",
            "loss": "cdpo",
            "beta": 1.0,
            "epsilon": spread,
            "validation_epsilon": spread,
            "margin_accuracy": {"before": around, "after": around},
            "changed_top": {"share": 0.3, "n": 3},
        },
        "oracle": {
            "accuracy": around,
            "uniform": {"tau": 1.1, **gaps},
            "temperatures": {"semantic": {"tau": 1.2, "accuracy": 0.6, "low": 0.5, "high": 0.7, "n": 1000}},
            **gaps,
        },
        "throughput": {
            "training_tokens_per_s": 1.5,
            "pairs_per_s": 2.5,
            "scoring_users_per_s": 3.5,
            "peak_memory_bytes": 1,
            "peak_memory_since": "block",
            "impl": "cpp",
            "attention": "forest",
            "device": "cpu",
            "threads": 2,
            "seconds": {"training": 1.0, "scoring": 2.0, "cell": 3.0},
        },
        "environment": {},
        "stages": {"games.test": "t", "games.scores.rosepo": "s", "sft": "m"},
    }


def write_v1(out: Path, made: dict[str, Any] | None = None) -> Path:
    """The record and its predictions, as that program wrote them; returns the record's path."""
    made = made or whole()
    folder = out / "records" / made["dataset"] / made["method"] / f"seed{made['seed']}-{made['key'][:12]}"
    folder.mkdir(parents=True)
    scores = np.arange(75, dtype=np.float32).reshape(3, 25)
    top, tied = np.arange(3, dtype=np.int32), np.array([True, False, False])
    rank = np.array([1, 1, 7], np.int32)
    np.savez(folder / "predictions.npz", users=np.arange(3), rank=rank, scores=scores, top=top, tied=tied)
    (folder / "record.json").write_text(json.dumps(made))
    return folder / "record.json"
