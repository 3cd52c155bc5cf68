"""Throughput of a training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from rosepo_bench.engine.training.loop import FitReport
from rosepo_bench.engine.training.memory import PeakMemory


@dataclass
class Meter:
    """Counts what this process trained on: ``tokens``, where those that sequences share count once, and preference
    ``pairs``. ``preparation`` are the seconds spent on building trees before the first step, ``step_seconds`` those of
    the passes without gradient that a loss needs to see the whole step. ``pairs_seen``: by the whole training, over
    all its resumptions."""

    tokens: int = 0
    pairs: int = 0
    preparation: float = 0.0
    step_seconds: float = 0.0
    pairs_seen: int = 0

    def count(self, *, tokens: int = 0, pairs: int = 0) -> None:
        self.tokens += tokens
        self.pairs += pairs

    def report(self, fit: FitReport, memory: PeakMemory) -> dict[str, Any]:
        """The training's report; rates are over the seconds of this process, None if a resumed run had no step left."""
        seconds = fit.session_seconds + self.preparation if fit.session_seconds else 0.0
        return {
            **asdict(fit),
            "tokens_per_s": self.tokens / seconds if seconds else None,
            "pairs_per_s": self.pairs / seconds if seconds and self.pairs else None,
            "tokens": self.tokens,
            **({"of_step_seconds": self.step_seconds} if self.step_seconds else {}),
            **memory.report(),
            "threads": torch.get_num_threads(),
        }
