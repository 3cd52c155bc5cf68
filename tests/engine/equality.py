"""Are log-probs and gradients over a forest those of separate rows? The comparison, and a table over many forests:

python tests/engine/equality.py --forests 200
"""

from __future__ import annotations

import argparse
import copy
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from small_models import CONTEXT, MORE, SHAPES, VOCABULARY, WINDOWED, language_model, network
from torch import Tensor, nn

from rosepo_bench.engine.forest import build, collate
from rosepo_bench.engine.model.architectures import score_cap

ULP = float(np.finfo(np.float32).eps)
CASES: list[tuple[str, dict[str, Any]]] = [*((kind, {}) for kind in SHAPES), *WINDOWED.items()]
ALL: list[tuple[str, dict[str, Any]]] = [*CASES, *((kind, {}) for kind in MORE)]

Group = list[tuple[np.ndarray, np.ndarray]]


def case_name(case: tuple[str, dict[str, Any]]) -> str:
    return f"{case[0]}{' with a window' if case[1] else ''}"


def random_group(draw: np.random.Generator) -> Group:
    """Prompts that extend each other, responses that share beginnings, now and then one that repeats."""
    trunk = draw.integers(1, VOCABULARY, size=int(draw.integers(3, 20)))
    group: Group = []
    for _ in range(int(draw.integers(1, 7))):
        prompt = trunk[: int(draw.integers(1, len(trunk) + 1))]
        start = draw.integers(1, 4, size=int(draw.integers(0, 3)))
        response = np.concatenate([start, draw.integers(1, VOCABULARY, size=int(draw.integers(1, 5)))])
        group.append((prompt, response))
    if draw.random() < 0.3:
        group.append(group[0])
    return group


def separate(model: nn.Module, groups: list[Group], attention: str) -> Tensor:
    """Each sequence alone, through the model's own forward pass with its own causal mask."""
    model.set_attn_implementation(attention)
    values = []
    for prompt, response in (pair for group in groups for pair in group):
        ids = torch.from_numpy(np.concatenate([prompt, response]))[None]
        logps = model(ids, use_cache=False).logits[0].log_softmax(-1)
        rows = torch.arange(len(prompt) - 1, ids.shape[1] - 1)
        values.append(logps[rows, ids[0, len(prompt) :]].sum())
    return torch.stack(values)


def packed(model: nn.Module, groups: list[Group]) -> Tensor:
    """All groups in one pass."""
    trees = [build(group, context=CONTEXT, vocabulary=VOCABULARY) for group in groups]
    return language_model(model).logps(collate(trees))


def values_and_gradients(model: nn.Module, values: Tensor, weights: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    (values * weights).sum().backward()
    found = {name: p.grad.double().clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"logps": values.detach().double(), **found}


def worst(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    assert found.keys() == exact.keys()
    return {name: float((found[name] - exact[name]).abs().max()) for name in exact}


@dataclass
class Comparison:
    """Largest errors over all forests. ``twin``: of the forest in fp64. ``forest``, ``alone``: of each tensor in fp32,
    over the forest and in separate rows. ``largest``: the largest magnitude of each tensor."""

    twin: float = 0.0
    forest: dict[str, float] = field(default_factory=dict)
    alone: dict[str, float] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)

    def add(self, forest: dict[str, float], alone: dict[str, float], exact: dict[str, Tensor]) -> None:
        magnitudes = {name: float(tensor.abs().max()) for name, tensor in exact.items()}
        for so_far, found in ((self.forest, forest), (self.alone, alone), (self.largest, magnitudes)):
            so_far.update({name: max(so_far.get(name, 0.0), found[name]) for name in found})

    def ratio(self) -> tuple[float, str]:
        """The worst tensor by the rule: its error over what is allowed, at most 1, and its name. A gradient that is 0
        in fp64 (that of OPT's key biases, which raise all scores of a query alike) is noise alone in fp32."""
        allowed = {name: 2 * self.alone[name] + 4 * ULP * most for name, most in self.largest.items() if most > 1e-12}
        return max((self.forest[name] / allowed[name], name) for name in allowed)


def compare(case: tuple[str, dict[str, Any]], forests: int, seed: int) -> Comparison:
    """Errors against separate rows in fp64 with attention by the textbook. Errors in fp32 are set against those of
    separate rows in fp32, the worst of all forests on either side: in one forest alone either is by chance worse."""
    double = network(case[0], torch.float64, **case[1])
    single = copy.deepcopy(double).float()
    stock = "eager" if score_cap(double.config) else "sdpa"  # transformers has no SDPA with capped scores
    draw, result = np.random.default_rng(seed), Comparison()
    for _ in range(forests):
        groups = [random_group(draw) for _ in range(int(draw.integers(1, 5)))]
        weights = torch.from_numpy(draw.normal(size=sum(map(len, groups))))
        exact = values_and_gradients(double, separate(double, groups, "textbook"), weights)
        twin = values_and_gradients(double, packed(double, groups), weights)
        result.twin = max(result.twin, *worst(twin, exact).values())
        alone = worst(values_and_gradients(single, separate(single, groups, stock), weights.float()), exact)
        forest = worst(values_and_gradients(single, packed(single, groups), weights.float()), exact)
        result.add(forest, alone, exact)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forests", type=int, default=200, help="random forests for each architecture")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    failed = 0
    print("| architecture | fp64: largest error | fp32 log-probs: forest / separate | worst tensor: error / allowed |")
    print("|:--|--:|--:|:--|")
    for case in ALL:
        found = compare(case, arguments.forests, arguments.seed)
        ratio, name = found.ratio()
        failed += found.twin >= 1e-10 or ratio > 1
        logps = " / ".join(f"{errors['logps'] / found.largest['logps']:.1e}" for errors in (found.forest, found.alone))
        print(f"| {case_name(case)} | {found.twin:.1e} | {logps} | {ratio:.2f} ({name}) |", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
