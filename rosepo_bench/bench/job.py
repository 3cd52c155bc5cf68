"""One drawn job for all contestants: the lists, the model and the loss that each of them computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from rosepo_bench.bench.head import BETA
from rosepo_bench.bench.lists import Lists, ListSize
from rosepo_bench.bench.network import trained

MODES = ("train", "score")
"""``train``: forward and backward of one optimizer step, without the optimizer; ``score``: log-probs."""


@dataclass(frozen=True)
class Found:
    """Log-probs and, when trained, the gradient of every parameter."""

    logps: Float[Tensor, "n R"]
    gradients: dict[str, Tensor]


@dataclass(frozen=True)
class Job:
    """With ``kept`` the gradients are allocated before a call, so that the peak above that is the step's own."""

    lists: Lists
    size: ListSize
    network: Any
    kept: bool = False

    @cached_property
    def reference(self) -> Float[Tensor, "n R"]:
        """The reference's log-probs, in the dtype that the model's have."""
        dtype = next(self.network.parameters()).dtype
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        return torch.from_numpy(self.lists.reference).to(device=self.size.device, dtype=wide)

    def losses(self, logps: Float[Tensor, "m R"], places: slice = slice(None)) -> Float[Tensor, " m"]:
        """The S-DPO loss (arXiv 2406.09215) of the lists ``places`` in plain torch; with one rejected it is DPO's."""
        rewards = BETA * (logps - self.reference[places])
        return -logsigmoid(-torch.logsumexp(rewards[:, 1:] - rewards[:, :1], -1))

    def call(self, mode: str, passes: Callable[[], Iterator[tuple[Any, Tensor, Tensor | None]]]) -> Callable[[], Found]:
        """A whole call: ``passes`` yields indices of responses, their log-probs and, in training, the pass's part of
        the mean loss, whose backward pass runs before the next one."""

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
        """Removes the gradients; with ``kept`` sets them to zero in place."""
        self.network.zero_grad(set_to_none=not self.kept)
        if self.kept:
            for parameter in trained(self.network).values():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    def found(self, logps: Float[Tensor, "n R"]) -> Found:
        return Found(logps, {name: p.grad for name, p in trained(self.network).items() if p.grad is not None})
