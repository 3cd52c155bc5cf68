"""Every preference loss against formulas of their own in extended precision: inputs, exact values, errors.

python tests/ops/loss_errors.py prints the worst errors by implementation, dtype and loss, as a table
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate
from torch import Tensor

from rosepo_bench.base.seeds import derive
from rosepo_bench.engine import ops
from rosepo_bench.engine.ops import library
from rosepo_bench.losses.formulas import LOSSES

Wide = NDArray[np.longdouble]
DTYPES = (torch.float32, torch.float64)
TENSORS = ("chosen", "rejected", "reference_chosen", "reference_rejected")
SIZES = [(pairs, rejected) for pairs in (0, 1, 7, 4097) for rejected in (1, 3)] + [(7, 64)]


def implementations() -> list[str]:
    """Those that can run here."""
    return ["cpp", "reference"] + (["cuda"] if cuda_is_here() else [])


def cuda_is_here() -> bool:
    return torch.cuda.is_available() and library.info()["cuda"] not in (None, "none")


def draw(loss: str, pairs: int, rejected: int, dtype: torch.dtype, *purpose: str) -> dict[str, Any]:
    """All that ``loss`` takes: log-probs of a plausible size, ε over its whole range, ends included."""
    row = LOSSES[loss]
    generator = torch.Generator().manual_seed(derive(0, "losses", loss, pairs, rejected, str(dtype), *purpose))

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    table = (pairs, rejected)
    everything = {
        "reference_chosen": -40 * uniform(pairs) - 0.1,
        "reference_rejected": -40 * uniform(*table) - 0.1,
        "epsilon": ((uniform(*table) * 1.2 - 0.1).clamp(0, 1) * row.max_epsilon),
        "kl": 3 * uniform(),
    }
    given: dict[str, Any] = {
        "chosen": -40 * uniform(pairs) - 0.1,
        "rejected": -40 * uniform(*table) - 0.1,
        "beta": 3 * uniform(pairs) + 0.02,
        "weight": 2 * uniform(pairs),
        **{name: value for name, value in everything.items() if name in row.needs | row.takes},
    }
    given = {name: value.to(dtype) for name, value in given.items()}
    lengths = {
        "chosen_tokens": torch.randint(1, 13, (pairs,), generator=generator),
        "rejected_tokens": torch.randint(1, 13, table, generator=generator),
    }
    numbers = {"gamma": 0.7, "sft_weight": 0.6, "desirable": 1.3, "undesirable": 0.8}
    more = {name: value for name, value in {**lengths, **numbers}.items() if name in row.needs | row.takes}
    return {**given, **more, "loss": loss}


def evaluate(given: dict[str, Any], implementation: str) -> tuple[Tensor, Tensor, Tensor, ops.Statistics]:
    """Losses, their gradients for chosen and rejected, statistics; on the CPU, in the dtype of the result."""
    device = "cuda" if implementation == "cuda" else "cpu"
    moved = {name: x.to(device) if isinstance(x, Tensor) else x for name, x in given.items()}
    chosen, rejected = (moved.pop(name).detach().clone().requires_grad_() for name in TENSORS[:2])
    losses, means = ops.preference_loss_and_statistics(chosen, rejected, **moved, impl=implementation)
    gradients = torch.autograd.grad(losses.sum(), [chosen, rejected])
    return losses.detach().cpu(), gradients[0].cpu(), gradients[1].cpu(), ops.Statistics(*(x.cpu() for x in means))


# --- exact values: straight from the equations, in extended precision, columns [pairs, 1], tables [pairs, K]


@dataclass
class Exact:
    """What a formula below sees."""

    lw: Wide
    ll: Wide
    rw: Wide  # minus the reference's
    rl: Wide
    nw: Wide
    nl: Wide
    eps: Wide
    beta: Wide
    more: dict[str, float]


def log_sigmoid(x: Wide) -> Wide:
    return -np.logaddexp(np.longdouble(0), -x)


def smooth(z: Wide, eps: Wide) -> Wide:
    return -(1 - eps) * log_sigmoid(z) - eps * log_sigmoid(-z)


def softmax_form(x: Exact) -> Wide:
    scores = np.concatenate([x.beta * x.rw, x.beta * x.rl], axis=1)
    log_p = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    count = x.rl.shape[1]
    inner = (x.eps * log_p[:, 1:]).sum(axis=1, keepdims=True) / count
    return -(1 - mean(x.eps)) * log_p[:, :1] - inner


def mean(table: Wide) -> Wide:
    return table.sum(axis=1, keepdims=True) / table.shape[1]


def robust(x: Exact) -> Wide:
    z = x.beta * (x.rw - x.rl)
    return (-(1 - x.eps) * log_sigmoid(z) + x.eps * log_sigmoid(-z)) / (1 - 2 * x.eps)


def log_odds(logp: Wide) -> Wide:
    return logp - np.log(-np.expm1(logp))


def kto(x: Exact) -> Wide:
    z = x.more["kl"]
    value_w, value_l = (1 / (1 + np.exp(-x.beta * gap)) for gap in (x.rw - z, z - x.rl))
    return x.more["desirable"] * (1 - value_w) + x.more["undesirable"] * (1 - value_l)


def orpo(x: Exact) -> Wide:
    odds = log_odds(x.lw / x.nw) - log_odds(x.ll / x.nl)
    return -x.lw / x.nw + x.beta * smooth(odds, x.eps)


EXACT: dict[str, Callable[[Exact], Wide]] = {
    "dpo": lambda x: -log_sigmoid(x.beta * (x.rw - x.rl)),
    "cdpo": softmax_form,
    "rosepo": softmax_form,
    "sdpo": lambda x: np.logaddexp(
        np.longdouble(0), np.logaddexp.reduce(x.beta * (x.rl - x.rw), axis=1, keepdims=True)
    ),
    "robust": robust,
    "ipo": lambda x: (x.rw / x.nw - x.rl / x.nl - 1 / (2 * x.beta)) ** 2,
    "ipo_sum": lambda x: (x.rw - x.rl - 1 / (2 * x.beta)) ** 2,
    "simpo": lambda x: smooth(x.beta * (x.lw / x.nw - x.ll / x.nl) - x.more["gamma"], x.eps),
    "cpo": lambda x: smooth(x.beta * (x.lw - x.ll), x.eps) - x.more["sft_weight"] * x.lw / x.nw,
    "orpo": orpo,
    "kto": kto,
    "dmpo": lambda x: smooth(x.beta * (x.rw - mean(x.rl)), mean(x.eps)),
}


def as_table(x: Wide) -> Wide:
    return x if x.ndim == 2 else x.reshape(-1, 1)


def exact_loss(given: dict[str, Any], chosen: Wide, rejected: Wide) -> Wide:
    """``[pairs]``, with these log-probs in the place of the given ones."""

    def wide(name: str, missing: float) -> Wide:
        x = given.get(name, missing)
        values = x.double().numpy() if isinstance(x, Tensor) else x
        return as_table(np.asarray(values, dtype=np.longdouble))

    lw, ll = chosen.reshape(-1, 1), as_table(rejected)
    numbers = {
        name: float(given[name]) for name in ("kl", "gamma", "sft_weight", "desirable", "undesirable") if name in given
    }
    found = EXACT[given["loss"]](
        Exact(
            lw,
            ll,
            lw - wide("reference_chosen", 0.0),
            ll - wide("reference_rejected", 0.0),
            wide("chosen_tokens", 1.0),
            wide("rejected_tokens", 1.0),
            np.broadcast_to(wide("epsilon", 0.0), ll.shape),
            wide("beta", 1.0),
            numbers,
        )
    )
    return (wide("weight", 1.0) * found)[:, 0]


def exact(given: dict[str, Any]) -> tuple[Wide, Wide, Wide]:
    """Losses and their derivatives by chosen and rejected: differences of sixth order."""
    chosen, rejected = (given[name].double().numpy().astype(np.longdouble) for name in TENSORS[:2])
    table = as_table(rejected)
    slopes = np.empty_like(table)
    for k in range(table.shape[1]):

        def moved(step: Wide, k: int = k) -> Wide:
            changed = table.copy()
            changed[:, k] += step
            return exact_loss(given, chosen, changed)

        slopes[:, k] = derivative(moved, table[:, k])
    slope = derivative(lambda step: exact_loss(given, chosen + step, table), chosen)
    return exact_loss(given, chosen, table), slope, slopes.reshape(rejected.shape)


def derivative(moved: Callable[[Wide], Wide], at: Wide) -> Wide:
    step = np.longdouble(2e-3) * np.minimum(1, np.abs(at) + (at == 0))
    one, two, three = (moved(k * step) - moved(-k * step) for k in (1, 2, 3))
    return (45 * one - 9 * two + three) / (60 * step)


# --- errors


@dataclass(frozen=True)
class Worst:
    """Largest errors, in ulp of the value's own size but at least of 1."""

    loss: float
    gradient: float


def worst(given: dict[str, Any], implementation: str) -> Worst:
    dtype = given["chosen"].dtype
    errors = [
        float((np.abs(x.double().numpy() - y) / np.maximum(1, np.abs(y))).max(initial=0)) / torch.finfo(dtype).eps
        for x, y in zip(evaluate(given, implementation)[:3], exact(given), strict=True)
    ]
    return Worst(errors[0], max(errors[1:]))


def table() -> Iterator[tuple[str, str, str, int, float, float]]:
    """(implementation, dtype, loss, K, worst error of losses, of gradients) over 4,097 pairs, 7 where K is 64."""
    for implementation in implementations():
        for dtype in DTYPES:
            for loss, row in LOSSES.items():
                for pairs, rejected in ((4097, 1), (4097, 3), (7, 64)) if row.many else ((4097, 1),):
                    found = worst(draw(loss, pairs, rejected, dtype), implementation)
                    yield implementation, str(dtype).removeprefix("torch."), loss, rejected, found.loss, found.gradient


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    headers = ("implementation", "dtype", "loss", "K", "loss, ulp", "gradient, ulp")
    print("# Worst errors of preference_loss\n")
    print(
        "Against the same losses written apart in extended precision, gradients by differences, in ulp of the value's"
    )
    print("size, at least of 1. `python tests/ops/loss_errors.py` prints this.\n")
    print(tabulate(table(), headers=headers, floatfmt=".2f", tablefmt="github"))


if __name__ == "__main__":
    main()
