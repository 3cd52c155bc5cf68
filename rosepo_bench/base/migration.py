"""Records of schema 1 in the form of the present one. They have one protocol, whose predictions are in
``predictions.npz`` without a hash, and no settings of the method beside the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rosepo_bench.base.record_schema import SCHEMA, row_of

KEPT = ("key", "dataset", "method", "family", "seed", "profile", "data", "throughput", "environment", "stages")


def migrated(old: Mapping[str, Any]) -> dict[str, Any]:
    """A record of schema 1 as one of this schema; older than all others, as it does not say when it was made.
    KeyError: it lacks a field."""
    protocol, config = old["protocol"], _reaching(old)
    told = {
        "facts": dict(protocol),
        "predictions": {"file": "predictions.npz", "sha256": None},
        "metrics": old["metrics"],
    }
    return {
        "schema": SCHEMA,
        "created": "",
        **{name: old[name] for name in KEPT},
        "row": row_of(old["method"], {}, config),
        "settings": {},
        "config": config,
        "training": None,
        "evaluations": {f"{protocol['name']}-{protocol['score']}": told},
        "diagnostics": {"preference": old["preference"], "oracle": old["oracle"]},
    }


def _reaching(old: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of the configuration that can have reached the cell: schema 1 held all of them, and a setting that
    does nothing must not make another row."""
    parts = {"dataset"}
    if old["family"] in ("language_model", "preference"):
        parts |= {"model", "prompt", "scoring"}
    if "sft" in old["stages"]:
        parts |= {"sft", "batch_tokens"}
    if old["preference"]:
        parts.add("preference")
    if old["oracle"]:
        parts |= {"oracle", "sasrec"}
    if any(name.endswith(".sasrec") for name in old["stages"]):
        parts.add("sasrec")
    return {name: value for name, value in old["config"].items() if name in parts}
