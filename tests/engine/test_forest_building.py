"""The compiled builder against its readable twin, what it refuses, and how it cuts groups."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace

import forest_twin
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import generator
from rosepo_bench.engine.forest import Limits, Tree, build, build_all, collate

CONTEXT = 64
FIELDS = ("tokens", "depth", "end", "node", "target", "sequence")

Group = list[tuple[np.ndarray, np.ndarray]]

# Few ids, so that sequences meet, extend and repeat each other in every way; the largest ids too.
IDS = st.sampled_from([0, 1, 2, 3, 2**31 - 1])
SEQUENCE = st.tuples(st.lists(IDS, min_size=1, max_size=9), st.lists(IDS, min_size=1, max_size=5))


def arrays(group: list[tuple[list[int], list[int]]], dtype: str = "int32") -> Group:
    return [(np.array(prompt, dtype=dtype), np.array(response, dtype=dtype)) for prompt, response in group]


def assert_equal(found: Tree, wanted: Tree) -> None:
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(found, field), getattr(wanted, field), err_msg=field)
    assert found.sequences == wanted.sequences


def random_group(draw: np.random.Generator, vocabulary: int) -> Group:
    """Prompts that extend each other or are one array, responses that share beginnings, some that repeat."""
    trunk = draw.integers(0, vocabulary, size=int(draw.integers(1, 40)))
    prompts = [trunk[: int(draw.integers(1, len(trunk) + 1))] for _ in range(int(draw.integers(1, 4)))]
    group: Group = []
    for _ in range(int(draw.integers(1, 12))):
        response = draw.integers(0, vocabulary, size=int(draw.integers(1, 6)))
        group.append((prompts[int(draw.integers(len(prompts)))], response))
    return group + group[: int(draw.integers(0, 2))]


@settings(max_examples=300, deadline=None)
@given(st.lists(SEQUENCE, min_size=1, max_size=9))
def test_the_builder_is_its_twin(group: list[tuple[list[int], list[int]]]) -> None:
    made = arrays(group)
    assert_equal(build(made, context=CONTEXT), forest_twin.build(made))


def test_many_groups_at_once_are_each_alone() -> None:
    draw = generator(0, "many groups")
    groups = [random_group(draw, int(draw.choice([2, 5, 4000]))) for _ in range(300)]
    found = build_all(groups, Limits(CONTEXT))
    assert [len(trees) for trees in found] == [1] * 300
    for (tree,), group in zip(found, groups, strict=True):
        assert_equal(tree, forest_twin.build(group))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64", ">i4"])
def test_any_integers_in_any_memory(dtype: str) -> None:
    group = [([5, 6, 7], [8, 9]), ([5, 6], [7, 1, 2]), ([4], [100])]
    wanted = forest_twin.build(arrays(group))
    assert_equal(build(arrays(group, dtype), context=CONTEXT), wanted)
    strided = [
        (np.repeat(prompt, 2)[::2], np.flip(np.flip(response).copy())) for prompt, response in arrays(group, dtype)
    ]
    assert_equal(build(strided, context=CONTEXT), wanted)
    assert_equal(build((pair for pair in group), context=CONTEXT), wanted)  # lists of a generator


def test_deep_and_wide_trees() -> None:
    """A path of 200,000 nodes needs no stack, 5,000 children of a node no list to walk."""
    draw = generator(0, "deep and wide")
    trunk = draw.integers(0, 50_000, size=200_000).astype(np.int32)
    starts = draw.permutation(50_000)[:5_000].astype(np.int32)
    group = [(trunk, np.array([start, 1, 2], dtype=np.int32)) for start in starts]
    tree = build(group, context=300_000)
    assert len(tree) == len(trunk) + 2 * len(starts)
    assert tree.tokens[len(trunk) :: 2].tolist() == sorted(starts.tolist())
    assert tree.end[: len(trunk)].tolist() == [len(tree)] * len(trunk)
    assert tree.target[tree.node == len(trunk) - 1].tolist() == starts.tolist()


def test_the_batch_is_its_twin() -> None:
    draw = generator(0, "batches")
    for _ in range(100):
        trees = [build(random_group(draw, 5), context=CONTEXT) for _ in range(int(draw.integers(1, 7)))]
        batch = collate(trees)
        for name, wanted in forest_twin.collate(trees).items():
            np.testing.assert_array_equal(getattr(batch, name).numpy(), wanted, err_msg=name)
        assert batch.sequences == sum(tree.sequences for tree in trees)
        assert batch.longest == max(tree.depth.max() for tree in trees) + 1


def test_trees_that_do_not_hold_together_are_refused() -> None:
    tree = build(arrays([([1], [2])]), context=CONTEXT)
    with pytest.raises(ValueError, match="a node that its tree does not have"):
        collate([replace(tree, node=tree.node + 1)])
    with pytest.raises(ValueError, match="differ in length"):
        collate([replace(tree, depth=tree.depth[:0])])


@pytest.mark.parametrize(
    ("prompt", "response", "message"),
    [
        ([], [1], "sequence 1: its prompt is empty, at least one token is needed"),
        ([1], [], "sequence 1: its response is empty, at least one token is needed"),
        ([1] * 60, [2] * 9, "sequence 1: a prompt of 60 tokens with a response of 9 is longer than the model's context "
         "of 64; shorten prompt.history or raise model.context"),
        ([1, -3], [2], "sequence 1: token 1 of its prompt is -3: ids are not negative"),
        ([1], [2, 2, 50], "sequence 1: token 2 of its response is 50, the vocabulary ends at 49"),
        ([1], [2**31], "sequence 1: its token id 2147483648 is beyond 32 bits"),
        ([1.5], [2], "sequence 1: its token ids are not one row of integers"),
        ([[1, 2]], [2], "sequence 1: its token ids are not one row of integers"),
    ],
)  # fmt: skip
def test_impossible_sequences_are_refused_by_name(prompt: list[int], response: list[int], message: str) -> None:
    good = (np.array([1]), np.array([2]))
    with pytest.raises(UserError) as error:
        build([good, (np.array(prompt), np.array(response))], context=CONTEXT, vocabulary=50)
    assert str(error.value) == message


def test_a_list_within_the_ids_is_refused() -> None:
    with pytest.raises(UserError, match=r"^sequence 1: its token ids are not one row of integers$"):
        build([([1], [2]), ([1, [2], 3], [4])], context=CONTEXT)  # type: ignore[list-item]


def test_a_group_without_sequences_and_a_sequence_that_is_no_pair_are_refused() -> None:
    with pytest.raises(UserError, match="sequence 0 of group 1: it is not there"):
        build_all([arrays([([1], [2])]), []], Limits(CONTEXT))
    with pytest.raises(ValueError, match="unit must be at least 1"):
        build_all([arrays([([1], [2])])], Limits(CONTEXT), unit=0)
    with pytest.raises(UserError, match="sequence 0: it is not a prompt and a response"):
        build([(np.array([1]),)], context=CONTEXT)  # type: ignore[list-item]


def test_equal_sequences_in_a_unit_are_refused_and_elsewhere_taken() -> None:
    one, other = ([1, 2], [3, 4]), ([1, 2], [3, 5])
    build_all([arrays([one, other, one, other])], Limits(CONTEXT), unit=2, distinct=True)
    build_all([arrays([one, one])], Limits(CONTEXT), unit=2)
    for same in (one, ([1], [2, 3, 4])):  # the same tokens, wherever the response begins
        with pytest.raises(UserError, match=r"sequence 3 of group 0: another response .* the very same tokens"):
            build_all([arrays([one, other, one, same])], Limits(CONTEXT), unit=2, distinct=True)
    with pytest.raises(UserError, match=r"sequence 2 of group 0: .* are 3 and do not go into units of 2"):
        build_all([arrays([one, other, one])], Limits(CONTEXT), unit=2)


def rejoined(trees: list[Tree]) -> list[tuple[int, ...]]:
    """The target tokens of each sequence over all trees of a group."""
    return [tuple(tree.target[tree.sequence == s]) for tree in trees for s in range(tree.sequences)]


@pytest.mark.parametrize("square", [0.0, 0.01])
def test_cut_groups_hold_the_same_sequences_within_the_budget(square: float) -> None:
    draw = generator(0, "cut groups")
    for _ in range(100):
        group = random_group(draw, 6)
        group = group[: len(group) // 2 * 2] or group * 2
        budget = max(len(forest_twin.build(group[s : s + 2])) for s in range(0, len(group), 2)) + int(draw.integers(9))
        (trees,) = build_all([group], Limits(CONTEXT, budget=budget, square=square), unit=2)
        assert rejoined(trees) == [tuple(response) for _, response in group]
        at = 0
        for tree in trees:
            assert len(tree) <= budget
            assert tree.sequences % 2 == 0
            assert_equal(tree, forest_twin.build(group[at : at + tree.sequences]))
            at += tree.sequences


def partitions(units: int) -> Iterator[list[int]]:
    """Every way to cut ``units`` in a row, as places from 0 to ``units``."""
    for inner in itertools.product((False, True), repeat=units - 1):
        yield [0, *(place + 1 for place, cut in enumerate(inner) if cut), units]


def test_cuts_cost_nearly_the_least_there_is() -> None:
    draw = generator(0, "cheapest cuts")

    def cost(sizes: Iterable[int]) -> float:
        return sum(size + square * size**2 for size in sizes)

    ratios = []
    for trial in range(150):
        square, group = (0.003, 0.02, 0.1)[trial % 3], steps(draw)
        (trees,) = build_all([group], Limits(1000, square=square), unit=2)
        least = min(
            cost(len(forest_twin.build(group[2 * a : 2 * b])) for a, b in itertools.pairwise(places))
            for places in partitions(len(group) // 2)
        )
        ratios.append(cost(map(len, trees)) / least)
    assert min(ratios) > 1 - 1e-12
    assert np.median(ratios) < 1 + 1e-12
    assert max(ratios) < 1.2


def steps(draw: np.random.Generator) -> Group:
    """Pairs after one another of a user, whose history begins anew every few steps."""
    items = [draw.integers(9, 99, size=int(draw.integers(1, 5))) for _ in range(20)]
    group: Group = []
    span, length, suffix = int(draw.integers(2, 5)), int(draw.integers(1, 6)), draw.integers(9, 99, size=4)
    for step in range(int(draw.integers(1, 9))):
        start = step // span * span
        prompt = np.concatenate([[1, 2], *items[start : start + length + step % span], suffix])
        group += [(prompt, draw.integers(9, 99, size=int(draw.integers(1, 6)))) for _ in range(2)]
    return group


def test_a_unit_over_the_budget_is_refused_with_what_to_set() -> None:
    group = arrays([([1, 2, 3], [4, 5]), ([1, 2, 3], [6, 5])])
    assert [len(tree) for tree in build_all([group], Limits(CONTEXT, budget=4))[0]] == [4, 4]
    message = r"sequence 0 of group 0: its tree alone has 5 tokens, a pass takes 4: raise batch_tokens"
    with pytest.raises(UserError, match=message):
        build_all([group], Limits(CONTEXT, budget=4), unit=2)


def test_a_group_is_cut_where_its_square_costs_more_than_the_prefix_twice() -> None:
    """100 responses of 5 tokens: under a short prompt apart, under a long one together, and never without a square."""

    def cost(trees: list[Tree]) -> float:
        return sum(len(tree) + 0.01 * len(tree) ** 2 for tree in trees)

    draw = generator(0, "square")
    for length, several in ((20, True), (3000, False)):
        prompt = draw.integers(0, 1000, size=length)
        group = [(prompt, draw.integers(0, 1000, size=6)) for _ in range(100)]
        (whole,) = build_all([group], Limits(5000))
        (cut,) = build_all([group], Limits(5000, square=0.01))
        assert len(whole) == 1
        assert (len(cut) > 1) is several
        assert cost(cut) <= cost(whole)
    (cut,) = build_all([group[:1] * 2], Limits(5000, square=0.01))
    assert len(cut) == 1  # equal sequences cost nothing together
