"""What sequence_logprob must keep whatever the numbers: order, splitting, shifts, chunks, threads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from logprob_cases import DTYPES, Case, call, draw, largest, magnitudes
from torch import Tensor

IMPLEMENTATIONS = ("cpp", "reference")
SIZES = st.tuples(st.integers(1, 9), st.integers(2, 40), st.integers(1, 7))  # rows, vocabulary, width
EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True)


def drawn(sizes: tuple[int, int, int], seed: int, cap: float = 0.0) -> Case:
    return draw(*sizes, bias=True, seed=seed, soft_cap=cap)


def assert_same(case: Case, found: dict[str, Tensor], wanted: dict[str, Tensor], *, exact: bool = False) -> None:
    """Equal to rounding of float64 (or of the case's dtype), or bit for bit."""
    assert found.keys() == wanted.keys()
    terms, eps = magnitudes(case), torch.finfo(case.hidden.dtype).eps
    for name, x in wanted.items():
        bound = 0 if exact else 64 * eps * terms[name]
        assert largest(found[name] - x) <= bound, name


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@EXAMPLES
@given(sizes=SIZES, seed=st.integers(0, 1000))
def test_the_order_of_rows_changes_nothing(impl: str, sizes: tuple[int, int, int], seed: int) -> None:
    case = drawn(sizes, seed)
    order = torch.randperm(sizes[0], generator=torch.Generator().manual_seed(seed))
    place = torch.argsort(order)
    moved = replace(case, hidden=case.hidden[order], row_of_target=place[case.row_of_target])
    found = call(moved, impl=impl)
    found["grad hidden"] = found["grad hidden"][place]
    assert_same(case, found, call(case, impl=impl))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@EXAMPLES
@given(sizes=SIZES, seed=st.integers(0, 1000), cap=st.sampled_from([0.0, 2.0]))
def test_the_order_of_triples_changes_nothing(impl: str, sizes: tuple[int, int, int], seed: int, cap: float) -> None:
    case = drawn(sizes, seed, cap)
    order = torch.randperm(len(case.targets), generator=torch.Generator().manual_seed(seed))
    names = ("targets", "row_of_target", "sequence_of_target")
    moved = replace(case, **{name: getattr(case, name)[order] for name in names})
    assert_same(case, call(moved, impl=impl), call(case, impl=impl))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@EXAMPLES
@given(sizes=SIZES, seed=st.integers(0, 1000))
def test_a_sequence_is_the_sum_of_its_parts(impl: str, sizes: tuple[int, int, int], seed: int) -> None:
    case = drawn(sizes, seed)
    second = torch.arange(len(case.targets)) % 2 * case.num_sequences
    parts = replace(
        case,
        sequence_of_target=case.sequence_of_target + second,
        num_sequences=2 * case.num_sequences,
        grad=case.grad.repeat(2),
    )
    found = call(parts, impl=impl)
    found["logps"] = found["logps"].view(2, -1).sum(0)
    assert_same(case, found, call(case, impl=impl))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@EXAMPLES
@given(sizes=SIZES, seed=st.integers(0, 1000), shift=st.floats(-100, 100))
def test_a_shift_of_all_logits_changes_nothing(impl: str, sizes: tuple[int, int, int], seed: int, shift: float) -> None:
    case = drawn(sizes, seed)
    assert case.bias is not None
    moved = replace(case, bias=case.bias + shift)
    assert_same(moved, call(moved, impl=impl), call(case, impl=impl))
    assert abs(float(call(case, impl=impl)["grad bias"].sum())) < 1e-12 * magnitudes(case)["grad bias"] * sizes[1]


@EXAMPLES
@given(
    sizes=SIZES,
    seed=st.integers(0, 1000),
    cap=st.sampled_from([0.0, 2.0]),
    chunk=st.integers(1, 12),
    budget=st.sampled_from([0, 1 << 9, 1 << 11, 1 << 13]),
)
def test_chunks_and_budget_change_nothing(
    sizes: tuple[int, int, int], seed: int, cap: float, chunk: int, budget: int
) -> None:
    case = drawn(sizes, seed, cap)
    assert_same(case, call(case, chunk_rows=chunk, memory_budget=budget), call(case))


@EXAMPLES
@given(sizes=SIZES, seed=st.integers(0, 1000), c=st.floats(-3, 3))
def test_the_gradient_is_linear_in_what_comes_in(sizes: tuple[int, int, int], seed: int, c: float) -> None:
    case = drawn(sizes, seed)
    scaled = call(replace(case, grad=case.grad * c))
    once = {name: x if name == "logps" else x * c for name, x in call(case).items()}
    assert_same(replace(case, grad=case.grad * max(1.0, abs(c))), scaled, once)


def test_a_chunk_that_holds_all_rows_is_the_same_as_none() -> None:
    case = draw(65, 1003, 8, torch.float32, bias=True)
    for budget in (0, 256 << 20):
        wanted = call(case, memory_budget=budget)
        for chunk in (65, 66, 1 << 40):
            found = call(case, memory_budget=budget, chunk_rows=chunk)
            for name in ("logps", "grad hidden"):  # the chunk sizes a block of columns too, where P is computed again
                assert torch.equal(found[name], wanted[name]), name
        # Whether probabilities are kept has nothing to do with log-probs and the gradient of hidden.
        assert torch.equal(wanted["grad hidden"], call(case, "hidden")["grad hidden"])
        assert torch.equal(wanted["logps"], call(case, "")["logps"])


@pytest.fixture
def threads() -> Iterator[Any]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_calls_at_the_same_time_do_not_share_the_scratch() -> None:
    cases = [draw(100, 2003, 16, dtype, seed=seed) for dtype in (torch.float32, torch.bfloat16) for seed in range(3)]
    alone = [call(case, memory_budget=0) for case in cases]
    with ThreadPoolExecutor(len(cases)) as pool:
        for _ in range(5):
            together = list(pool.map(lambda case: call(case, memory_budget=0), cases))
            for case, found, wanted in zip(cases, together, alone, strict=True):
                assert_same(case, found, wanted, exact=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("budget", [0, 256 << 20])
def test_deterministic_and_equal_for_any_number_of_threads(budget: int, dtype: torch.dtype, threads: Any) -> None:
    case = draw(65, 1003, 33, dtype, bias=True, soft_cap=20.0)
    wanted = call(case, memory_budget=budget)
    assert_same(case, call(case, memory_budget=budget), wanted, exact=True)
    for count in (2, 3):
        threads(count)
        found = call(case, memory_budget=budget)
        assert_same(case, call(case, memory_budget=budget), found, exact=True)
        # To rounding alone: torch's products may add up a long sum (over the vocabulary, for the gradient of hidden)
        # in as many parts as there are threads.
        assert_same(case, found, wanted)
