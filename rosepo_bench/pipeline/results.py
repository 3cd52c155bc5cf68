"""What the stages of trained models hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from rosepo_bench.base import store


class Trained(NamedTuple):
    """Weights on disk, and the report of their training (see ``engine/training/meter.py``)."""

    weights: Path
    report: dict[str, Any]


def read_trained(folder: Path) -> Trained:
    return Trained(folder / "weights.safetensors", store.read_json(folder / "report.json"))
