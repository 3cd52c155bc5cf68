"""One drawn work for all contestants: the lists, the model and the loss that everyone computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rosepo_bench.bench.head import BETA
from rosepo_bench.bench.lists import Lists, ListSize
from rosepo_bench.bench.network import trained

MODES = ("train", "score")
"""``train``: forward and backward of one optimizer step, the optimizer's own work left out; ``score``: log-probs."""


@dataclass(frozen=True)
class Found:
    """Log-probs ``[n, R]`` and, when trained, the gradient of every parameter."""

    logps: Tensor
    gradients: dict[str, Tensor]


@dataclass(frozen=True)
class Job:
    """With ``kept`` the gradients have their memory before a call begins: a peak above that is the step's own."""

    lists: Lists
    size: ListSize
    network: Any
    kept: bool = False

    @cached_property
    def reference(self) -> Tensor:
        """``[n, R]`` as the log-probs are."""
        dtype = next(self.network.parameters()).dtype
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        return torch.from_numpy(self.lists.reference).to(device=self.size.device, dtype=wide)

    def losses(self, logps: Tensor, places: slice = slice(None)) -> Tensor:
        """The S-DPO loss (arXiv 2406.09215) of the lists ``places`` by hand; with one rejected it is DPO's."""
        rewards = BETA * (logps - self.reference[places])
        return -logsigmoid(-torch.logsumexp(rewards[:, 1:] - rewards[:, :1], -1))

    def call(self, mode: str, passes: Callable[[], Iterator[tuple[Any, Tensor, Tensor | None]]]) -> Callable[[], Found]:
        """A whole call: ``passes`` gives places in the lists' responses, their log-probs and, where it is training, the
        part of the mean loss that the pass has; each is followed by its backward pass."""

        def call() -> Found:
            self.clear()
            logps = torch.empty_like(self.reference)
            with torch.set_grad_enabled(mode == "train"):
                for places, values, loss in passes():
                    logps.view(-1)[places] = values.detach().view(-1)
                    if loss is not None:
                        loss.backward()
            return self.found(logps)

        return call

    def clear(self) -> None:
        """No gradient, or with ``kept`` gradients of zero where they were."""
        self.network.zero_grad(set_to_none=not self.kept)
        if self.kept:
            for parameter in trained(self.network).values():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    def found(self, logps: Tensor) -> Found:
        return Found(logps, {name: p.grad for name, p in trained(self.network).items() if p.grad is not None})
