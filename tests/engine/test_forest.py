"""The forest computes what separate rows compute, on every architecture that is let in."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from small_models import CONTEXT, VOCABULARY, language_model, network
from torch import Tensor, nn
from transformers import AutoConfig

from rosepo_bench.engine.forest import Tree, build, collate
from rosepo_bench.engine.model import SUPPORTED, refuse_unsuitable
from rosepo_bench.errors import UserError

Group = list[tuple[np.ndarray, np.ndarray]]


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


def separate(model: nn.Module, groups: list[Group]) -> Tensor:
    """Each sequence alone, through the model's own forward pass with its own causal mask."""
    values = []
    for prompt, response in (pair for group in groups for pair in group):
        ids = torch.from_numpy(np.concatenate([prompt, response]))[None]
        logps = model(ids, use_cache=False).logits[0].log_softmax(-1)
        rows = torch.arange(len(prompt) - 1, ids.shape[1] - 1)
        values.append(logps[rows, ids[0, len(prompt) :]].sum())
    return torch.stack(values)


def packed(model: nn.Module, groups: list[Group], rows: list[int]) -> Tensor:
    trees = [build(group, context=CONTEXT, vocabulary=VOCABULARY) for group in groups]
    return language_model(model).logps(collate(trees, rows=rows))


def random_rows(draw: np.random.Generator, trees: int) -> list[int]:
    """How many trees stand in each row."""
    cuts = np.flatnonzero(draw.integers(0, 2, size=trees - 1)) + 1
    return np.diff([0, *cuts, trees]).tolist()


def values_and_gradients(model: nn.Module, values: Tensor, weights: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    (values * weights).sum().backward()
    found = {name: p.grad.double().clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"logps": values.detach().double(), **found}


def worst(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    assert found.keys() == exact.keys()
    return {name: float((found[name] - exact[name]).abs().max()) for name in exact}


@pytest.mark.parametrize("kind", SUPPORTED)
def test_forest_equals_separate_rows(kind: str) -> None:
    """fp32: no tensor is further from fp64 than twice the separate rows' own error plus 4 ulp, the worst of all forests
    in units of the tensor's largest magnitude (in one forest alone either side is by chance worse, one tensor in a
    thousand); fp64: 1e-10."""
    double = network(kind, torch.float64)
    single = copy.deepcopy(double).float()
    draw = np.random.default_rng(SUPPORTED.index(kind))
    errors: dict[str, list[tuple[float, float]]] = {}
    for _ in range(6):
        groups = [random_group(draw) for _ in range(int(draw.integers(1, 5)))]
        rows = random_rows(draw, len(groups))
        weights = torch.from_numpy(draw.normal(size=sum(map(len, groups))))
        exact = values_and_gradients(double, separate(double, groups), weights)
        twin = values_and_gradients(double, packed(double, groups, rows), weights)
        assert max(worst(twin, exact).values()) < 1e-10
        alone = worst(values_and_gradients(single, separate(single, groups), weights.float()), exact)
        forest = worst(values_and_gradients(single, packed(single, groups, rows), weights.float()), exact)
        for name, error in forest.items():
            largest = float(exact[name].abs().max())
            errors.setdefault(name, []).append((error / largest, alone[name] / largest))
    for name, pairs in errors.items():
        packed_worst, alone_worst = (max(column) for column in zip(*pairs, strict=True))
        assert packed_worst <= 2 * alone_worst + 4 * np.finfo(np.float32).eps, name


def visible(tree: Tree) -> np.ndarray:
    """The mask by its definition: a node sees itself and its ancestors."""
    mask = np.zeros((len(tree), len(tree)), dtype=bool)
    parents: list[int] = []
    for node in range(len(tree)):
        parents = [*parents[: tree.depth[node]], node]
        mask[node, parents] = True
    return mask


def test_one_line_mask_is_ancestry() -> None:
    draw = np.random.default_rng(3)
    for _ in range(50):
        trees = [build(random_group(draw), context=CONTEXT) for _ in range(3)]
        batch = collate(trees, rows=[3])
        mask, start = batch.mask()[:, 0].numpy(), 0
        assert mask.shape[0] == 1
        for tree in trees:
            stop = start + len(tree)
            np.testing.assert_array_equal(mask[0, start:stop, start:stop], visible(tree))
            assert mask[0, start:stop].sum() == visible(tree).sum()  # nothing of another tree is seen
            start = stop


def test_shared_tokens_are_one_node() -> None:
    prompt = np.array([1, 2, 3])
    tree = build(
        [(prompt, np.array([4, 5, 7])), (prompt, np.array([4, 6, 7])), (np.array([1, 2]), np.array([3, 9]))],
        context=9,
    )
    assert tree.tokens.tolist() == [1, 2, 3, 4, 5, 6]  # last tokens are targets, no nodes
    assert tree.depth.tolist() == [0, 1, 2, 3, 4, 4]
    assert tree.end.tolist() == [6, 6, 6, 6, 5, 6]
    assert sorted(zip(tree.sequence.tolist(), tree.target.tolist(), strict=True)) == [
        *((0, 4), (0, 5), (0, 7)),
        *((1, 4), (1, 6), (1, 7)),
        *((2, 3), (2, 9)),
    ]
    # What predicts the shared first response token is projected once.
    assert len(collate([tree]).rows) == len(set(tree.node.tolist())) == 5


def test_a_window_of_steps_is_one_trunk() -> None:
    titles = [np.array([10 + k, 20 + k, 1]) for k in range(5)]
    header = np.array([0, 1])
    steps = [(np.concatenate([header, *titles[:k]]), titles[k]) for k in range(5)]
    tree = build(steps, context=64)
    assert tree.tokens.tolist() == np.concatenate([header, *titles])[:-1].tolist()
    assert (tree.end == len(tree)).all()


def test_rows_keep_the_order_of_sequences() -> None:
    draw = np.random.default_rng(5)
    model = network("llama", torch.float64)
    groups = [random_group(draw) for _ in range(7)]
    with torch.no_grad():
        one = packed(model, groups, [1] * 7)
        for rows in ([7], [3, 4], [1, 2, 4]):
            torch.testing.assert_close(packed(model, groups, rows), one, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("mamba", {}, "'mamba' is not supported"),
        ("gemma2", {}, "'gemma2' is not supported"),
        ("mistral", {"sliding_window": 32}, "sliding window of 32"),
        (
            "qwen2",
            {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0},
            "sliding window",
        ),
    ],
)
def test_models_the_mask_is_wrong_for_are_refused(kind: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        refuse_unsuitable(AutoConfig.for_model(kind, **settings))
