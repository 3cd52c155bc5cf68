"""Throughput: what was processed, and how fast."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from rosepo_bench.engine.training.loop import FitReport
from rosepo_bench.engine.training.memory import PeakMemory


@dataclass
class Meter:
    """Counts what this process trained on: ``tokens`` are the forest's nodes, each computed once; ``pairs`` preference
    pairs; ``preparation`` is the seconds that building trees took before the first step."""

    tokens: int = 0
    pairs: int = 0
    preparation: float = 0.0

    def count(self, *, tokens: int = 0, pairs: int = 0) -> None:
        self.tokens += tokens
        self.pairs += pairs

    def report(self, fit: FitReport, memory: PeakMemory) -> dict[str, Any]:
        """Rates over the seconds of this process; None where a resumed run had nothing left to do."""
        seconds = fit.session_seconds + self.preparation if fit.session_seconds else 0.0
        return {
            **asdict(fit),
            "tokens_per_s": self.tokens / seconds if seconds else None,
            "pairs_per_s": self.pairs / seconds if seconds and self.pairs else None,
            **memory.report(),
            "threads": torch.get_num_threads(),
        }
