"""Verifies results on lists: each contestant's error against fp64, relative to the error of separate rows."""

from __future__ import annotations

import gc
import math
from dataclasses import replace

import torch
from torch import Tensor

from rosepo_bench.bench.exact import UnequalError
from rosepo_bench.bench.job import Found, Job
from rosepo_bench.bench.list_peers import separate
from rosepo_bench.bench.network import twin

FACTOR, ULPS = 2.0, 4.0


class Yardstick:
    """The exact numbers of a job, and for each tensor the error of separate rows in the job's own dtype."""

    def __init__(self, job: Job, mode: str) -> None:
        rows, alone = separate(1), replace(job, kept=False)
        # Models with adapters are so large that two barely fit beside each other.
        wide = twin(job.network, checkpointing=bool(job.size.lora))
        self.exact = _tensors(rows(replace(alone, network=wide), mode)())
        del wide
        gc.collect()
        self.dtype = next(job.network.parameters()).dtype
        same = _tensors(rows(alone, mode)())
        self.errors = {name: _error(same[name], wanted) for name, wanted in self.exact.items()}

    def require(self, found: Found, who: str) -> None:
        """Raises :class:`UnequalError` where a tensor is absent, or its largest error exceeds twice that of separate
        rows plus four units in the last place of its largest element."""
        tensors = _tensors(found)
        for name, wanted in self.exact.items():
            if name not in tensors:
                raise UnequalError(f"{who} gives no {name}")
            error, allowed = _error(tensors[name], wanted), self.allowed(name)
            if not error <= allowed:
                raise UnequalError(
                    f"{who}: {name} is off by {error:.2e}, more than {allowed:.2e}; separate rows are off by "
                    f"{self.errors[name]:.2e}"
                )

    def allowed(self, name: str) -> float:
        largest = float(self.exact[name].abs().max())
        unit = torch.finfo(torch.float32 if name == "log-probs" and self.dtype.itemsize == 2 else self.dtype).eps
        ulp = unit * 2.0 ** math.floor(math.log2(largest)) if largest else 0.0
        return FACTOR * self.errors[name] + ULPS * ulp


def _tensors(found: object) -> dict[str, Tensor]:
    assert isinstance(found, Found), "what a job's call gives"
    return {"log-probs": found.logps, **{f"gradient of {name}": grad for name, grad in found.gradients.items()}}


def _error(found: Tensor, wanted: Tensor) -> float:
    return float((found.to(wanted.dtype) - wanted).abs().max())
