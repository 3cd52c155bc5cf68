"""Does a model give over the forest what its own forward gives? Measured once for each network, on a short probe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.forest import Group, build, collate
from rosepo_bench.engine.model import attention

if TYPE_CHECKING:
    from jaxtyping import Float

SHORT = 24  # tokens of the probe's longest path, where no window asks for more
LONGEST_WINDOW = 512  # a longer one is not reached: the probe would be costly
RESPONSE = 6
TOKENS = 64  # whose log-probs are compared at every predicting position
# Rounding that is let pass, in units in the last place of the log-probs' size; measured were up to 4.3 and 1.2, in 28
# layers with wild weights. In 16 bits only results are rounded, sums are held in fp32.
ULPS_32, ULPS_16 = 32.0, 4.0


@dataclass(frozen=True)
class SelfCheck:
    """``difference`` between log-probs over the forest and by the model's own forward, in nats: the root mean square
    over tokens of the vocabulary, at the position where it is largest. ``tolerance``: what rounding may explain."""

    difference: float
    tolerance: float


class Checked(Protocol):
    """What the check needs of a ``ForestModel``; the meanings are there."""

    network: Any
    impl: str
    attention: str
    dtype: torch.dtype | None

    @property
    def context(self) -> int: ...

    @property
    def vocabulary(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def body(self, **inputs: Any) -> Tensor: ...

    def autocast(self) -> AbstractContextManager[None]: ...

    def new_head(self) -> nn.Module: ...


_made: WeakKeyDictionary[Any, dict[Any, SelfCheck]] = WeakKeyDictionary()


def checked(model: Checked) -> SelfCheck | None:
    """The check of this network with these settings, weights' dtype and device, if it was made."""
    return _made.get(model.network, {}).get(_key(model))


def check(model: Checked) -> SelfCheck | None:
    """Compares on the probe and remembers the result; None where the model's own log-probs are not finite, as there is
    nothing to compare. UserError where the difference is beyond rounding.

    The model is in eval mode meanwhile, and hooks of its layers run; weights, mode and random states are left as they
    were.
    """
    groups = probe(model)
    with _undisturbed(model.network, model.device):
        logits = _separate_rows(model, groups)
        if not bool(logits.isfinite().all()):
            return None
        exact = logits.log_softmax(-1)
        size = max(_mean_size(logits), _mean_size(exact))
        tokens = torch.from_numpy(np.random.default_rng(1).integers(logits.shape[-1], size=TOKENS)).to(logits.device)
        difference = _mean_size(_over_forest(model, groups, tokens) - exact[:, tokens])
    dtype, rounding = _rounding(model)
    found = SelfCheck(difference, rounding * size)
    if not found.difference <= found.tolerance:
        raise UserError(
            f"this {type(model.network).__name__} gives other log-probs over the token forest than by its own forward: "
            f"they differ by {found.difference:.2g}, rounding in {dtype} explains {found.tolerance:.2g}. "
            "Its class or configuration was changed (how tokens see each other, positions, scale or cap of logits), "
            "or a layer mixes tokens: use the model as transformers has it"
        )
    _made.setdefault(model.network, {})[_key(model)] = found
    return found


def _mean_size(values: Float[Tensor, "P tokens"]) -> float:
    """The root mean square over tokens, at the position where it is largest."""
    return float(values.square().mean(1).sqrt().max())


def probe(model: Checked) -> list[Group]:
    """Two trees of random tokens, always the same, with branches at several depths; one path is longer than the model's
    window where that has at most ``LONGEST_WINDOW`` tokens."""
    draw, context = np.random.default_rng(0), model.context
    window = attention.window_of(model.network.config)
    longest = min(context, SHORT + (window if window <= LONGEST_WINDOW else 0))
    trunk, first, second, third, other = (
        draw.integers(model.vocabulary, size=max(1, size)) for size in (longest - RESPONSE, *[RESPONSE] * 4)
    )
    second[: RESPONSE // 3] = first[: RESPONSE // 3]
    trees = [[(trunk, first), (trunk, second), (trunk[: len(trunk) // 2 + 1], third)], [(other, first)]]
    trees = [[(prompt[: context - 1], response) for prompt, response in tree] for tree in trees]
    return [[(prompt, response[: context - len(prompt)]) for prompt, response in tree] for tree in trees]


def _separate_rows(model: Checked, groups: list[Group]) -> Float[Tensor, "P V"]:
    """The logits that predict the responses' tokens, sequence by sequence, by the model's own forward."""
    found, ours = [], model.network.config._attn_implementation
    model.network.set_attn_implementation("eager")
    try:
        for prompt, response in (pair for group in groups for pair in group):
            ids = torch.from_numpy(np.concatenate([prompt, response])).to(model.device)
            with model.autocast():
                logits = model.network(input_ids=ids[None], use_cache=False).logits[0]
            found.append(logits[len(prompt) - 1 : -1].to(torch.promote_types(logits.dtype, torch.float32)))
    finally:
        model.network.set_attn_implementation(ours)
    return torch.cat(found)


def _over_forest(model: Checked, groups: list[Group], tokens: Tensor) -> Float[Tensor, "P tokens"]:
    """The log-probs of ``tokens`` at the same positions: each is a sequence of its own to the head."""
    batch = collate([build(group, context=model.context) for group in groups], device=model.device)
    inputs = attention.inputs(batch, model.network.config, model.attention, model.impl)
    rows = model.body(**inputs, use_cache=False)[0].index_select(0, batch.rows)
    count, width = len(batch.target), len(tokens)
    row = batch.row_of_target.repeat_interleave(width)
    sequence = torch.arange(count * width, device=row.device)
    with model.autocast():
        found: Tensor = model.new_head()(rows, tokens.repeat(count), row, sequence, count * width)
    return found.view(count, width)


def _rounding(model: Checked) -> tuple[torch.dtype, float]:
    """The coarsest dtype that a pass computes in, and how far its rounding may move a log-prob of size 1."""
    kind = model.device.type
    dtypes = {p.dtype for p in model.network.parameters() if p.is_floating_point()} | {torch.float32}
    with model.autocast():
        if torch.is_autocast_enabled(kind):
            dtypes.add(torch.get_autocast_dtype(kind))
    coarsest = max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)
    if coarsest == torch.float32:
        reduced = {"high": 2.0**-10, "medium": 2.0**-7}.get(torch.get_float32_matmul_precision(), 0.0)  # as TF32
        return coarsest, max(ULPS_32 * torch.finfo(coarsest).eps, ULPS_16 * reduced)
    return coarsest, ULPS_16 * torch.finfo(coarsest).eps


def _key(model: Checked) -> tuple[Any, ...]:
    weight = next(model.network.parameters())
    return model.attention, model.impl, model.dtype, weight.dtype, weight.device


@contextmanager
def _undisturbed(network: Any, device: torch.device) -> Iterator[None]:
    """Eval mode, no gradient, and random states as before."""
    before = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        for module, training in before:
            module.training = training
