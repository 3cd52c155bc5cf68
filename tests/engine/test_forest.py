"""Trees and their masks. That a model computes the same over them: test_architectures.py."""

from __future__ import annotations

import numpy as np
import torch
from equality import packed, random_group
from scipy.linalg import block_diag
from small_models import CONTEXT, network

from rosepo_bench.engine.forest import Tree, build, collate
from rosepo_bench.engine.ops.attention_reference import tree_masks


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
        batch = collate(trees)
        node = np.arange(len(batch))
        whole = (node <= node[:, None]) & (node[:, None] < batch.end.numpy())
        alone = [visible(tree) for tree in trees]
        np.testing.assert_array_equal(whole, block_diag(*alone))  # nothing of another tree is seen
        for found, wanted in zip(tree_masks(batch.end, batch.depth), alone, strict=True):
            np.testing.assert_array_equal(found, wanted)


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


def test_a_pass_keeps_the_order_of_sequences() -> None:
    draw = np.random.default_rng(5)
    model = network("llama", torch.float64)
    groups = [random_group(draw) for _ in range(7)]
    with torch.no_grad():
        alone = torch.cat([packed(model, [group]) for group in groups])
        torch.testing.assert_close(packed(model, groups), alone, rtol=0, atol=1e-10)
