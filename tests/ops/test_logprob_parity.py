"""sequence_logprob against plain torch in float64 on the same rounded numbers: dtypes, odd shapes, options, layouts."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle
from typing import Any

import pytest
import torch
from logprob_cases import DTYPES, Case, call, draw, error, exact, largest, magnitudes, naive
from logprob_errors import CASES, worst_errors
from torch import Tensor

IMPLEMENTATIONS = ("cpp", "reference")
WANTED = ("hidden weight bias", "hidden", "weight", "bias", "hidden weight", "hidden bias", "weight bias", "")
BUDGETS = (256 << 20, 0)
CHUNKS = (0, 1, 3, 1 << 40)
SQUASHES: tuple[dict[str, Any], ...] = (
    {},
    {"bias": True},
    {"logit_scale": 0.5, "soft_cap": 3.0},
    {"bias": True, "logit_scale": 1.5},
    {"bias": True, "soft_cap": 0.5},
)
# Roundings, in units of the dtype, that a term may meet on its way beside what the naive head makes of it. In 16 bits
# ours keeps a probability and C h, each rounded, and rounds their sum: three halves. In 32 and 64 bits the sums over
# the vocabulary are in another order, and in 64 bits the exact values are rounded no less.
ROUNDINGS = {torch.float32: 16, torch.float64: 64, torch.bfloat16: 4, torch.float16: 4}


def assert_close(case: Case, found: dict[str, Tensor]) -> None:
    dtype = case.hidden.dtype
    terms, quantities = magnitudes(case), ("logps", "grad hidden", "grad weight", "grad bias")
    wanted = dict(zip(quantities, exact(case), strict=False))
    plain = dict(zip(quantities, naive(case), strict=False))
    for name, x in found.items():
        assert x.dtype == plain[name].dtype, name
        unit = torch.finfo(dtype).eps * terms[name]
        assert error(x, wanted[name]) <= 2 * error(plain[name], wanted[name]) + ROUNDINGS[dtype] * unit, name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [0, 1, 7, 65])
@pytest.mark.parametrize("vocabulary", [1, 2, 33, 1003])
@pytest.mark.parametrize("width", [1, 3, 64])
def test_equal_to_plain_torch(rows: int, vocabulary: int, width: int, dtype: torch.dtype) -> None:
    wanted, chunks = cycle(WANTED), cycle(CHUNKS)
    for number, squash in enumerate(SQUASHES):
        case = draw(rows, vocabulary, width, dtype, seed=number, **squash)
        for budget in BUDGETS:
            names = " ".join(name for name in next(wanted).split() if name != "bias" or case.bias is not None)
            assert_close(case, call(case, names, memory_budget=budget, chunk_rows=next(chunks), impl="cpp"))
        assert_close(case, call(case, names, impl="reference"))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("wanted", WANTED)
def test_whichever_gradients_are_wanted(wanted: str, budget: int, dtype: torch.dtype, impl: str) -> None:
    case = draw(7, 33, 5, dtype, bias=True, soft_cap=4.0)
    assert_close(case, call(case, wanted, impl=impl, memory_budget=budget))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strided_tensors(dtype: torch.dtype, impl: str) -> None:
    case = draw(9, 35, 6, dtype, bias=True)

    def strided(x: Tensor) -> Tensor:
        return torch.stack([x, x * 0 - 1], dim=-1)[..., 0]

    transposed = case.weight.T.contiguous().T
    other = replace(
        case,
        hidden=strided(case.hidden),
        weight=transposed,
        bias=strided(case.bias),  # type: ignore[arg-type]
        targets=strided(case.targets),
        row_of_target=strided(case.row_of_target),
        sequence_of_target=strided(case.sequence_of_target),
        grad=strided(case.grad),
    )
    assert not any(x.is_contiguous() for x in (other.hidden, other.weight, other.bias, other.targets, other.grad))
    found, wanted = call(other, impl=impl), call(case, impl=impl)
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-5, atol=1e-6)
    one = case.grad[:1].expand(5)  # as sum().backward() sends it
    assert_close(replace(case, grad=one), call(replace(case, grad=one), impl=impl))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize(("rows", "vocabulary", "width"), [(0, 0, 0), (3, 0, 2), (0, 4, 2), (3, 4, 0)])
def test_empty_sizes(rows: int, vocabulary: int, width: int, impl: str) -> None:
    for budget in BUDGETS:
        case = draw(rows, vocabulary, width, torch.float32, bias=True, sequences=3)
        found = call(case, impl=impl, memory_budget=budget)
        wanted = naive(case) if rows and vocabulary else (torch.zeros(3), *map(torch.zeros_like, leaves(case)))
        for x, y in zip(found.values(), wanted, strict=True):
            torch.testing.assert_close(x, y)


def leaves(case: Case) -> tuple[Tensor, ...]:
    assert case.bias is not None
    return case.hidden, case.weight, case.bias


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_an_empty_sequence_and_no_sequence(impl: str) -> None:
    case = draw(7, 33, 5, torch.float32)
    assert call(case, impl=impl)["logps"][-1] == 0
    none = replace(case, num_sequences=0, grad=case.grad[:0], **dict.fromkeys(
        ("targets", "row_of_target", "sequence_of_target"), case.targets[:0]))  # fmt: skip
    found = call(none, impl=impl)
    assert found["logps"].shape == (0,)
    assert largest(found["grad hidden"]) == largest(found["grad weight"]) == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_an_earlier_call_left_in_the_scratch_does_no_harm(dtype: torch.dtype) -> None:
    """The scratch is kept between calls; rows and columns beside those in use may be read, and multiplied by 0."""
    bad = draw(600, 20_000, 2, dtype)
    bad = replace(bad, hidden=torch.full_like(bad.hidden, float("nan")))
    for rows, vocabulary in ((1, 1), (7, 33), (33, 1003)):
        for budget in BUDGETS:
            with pytest.raises(ValueError, match=r"hidden\[\d+, 0\] is nan"):
                call(bad, "")
            case = draw(rows, vocabulary, 3, dtype, bias=True)
            assert_close(case, call(case, memory_budget=budget, chunk_rows=5))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_memory_without_contents_is_never_read(dtype: torch.dtype) -> None:
    """In torch's deterministic mode new memory is NaN."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(1).isnan()
        for rows, vocabulary in ((1, 1), (7, 33), (33, 1003)):
            for budget in BUDGETS:
                case = draw(rows, vocabulary, 3, dtype, bias=True, soft_cap=9.0)
                assert_close(case, call(case, memory_budget=budget, chunk_rows=5))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bit_logits_may_overflow_downwards(dtype: torch.dtype) -> None:
    """A logit of -infinity is a probability of 0, unless a cap makes it -soft_cap."""
    case = draw(5, 9, 4, dtype, bias=True)
    weight = case.weight.clone()
    weight[8] = torch.finfo(dtype).min / 2
    for cap in (0.0, 5.0):
        low = replace(
            case, weight=weight, hidden=case.hidden.abs() + 1, targets=case.targets.clamp(max=7), soft_cap=cap
        )
        for budget in BUDGETS:
            found = call(low, memory_budget=budget)
            assert all(torch.isfinite(x).all() for x in found.values())
            logps = exact(low)[0]
            assert error(found["logps"], logps) <= 20 * torch.finfo(dtype).eps * largest(logps)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("cap", [0.25, 2.0])
def test_a_small_cap_in_16_bits(cap: float, dtype: torch.dtype) -> None:
    """The targets' rounded logits are taken out of the row, and a cap makes numbers of what is left in their place."""
    case = draw(6, 3, 8, dtype, soft_cap=cap, triples=60)
    assert_close(case, call(case))
    # Log-probs of so narrow a range are as exact as the logits' rounding: far closer than one term of the sum.
    assert error(call(case, "")["logps"], exact(case)[0]) < 60 * cap * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [x for x in DTYPES if x != torch.float64], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_no_worse_than_the_naive_head(case: str, dtype: torch.dtype) -> None:
    """At sizes of real work the bound is sharp: twice the naive head's worst error in the same dtype, and a few units
    in the last place of the tensor's largest value. Float64 is what errors are measured against."""
    for label, ours, plainly, most in worst_errors(case, dtype):
        assert ours <= 2 * plainly + 4 * torch.finfo(dtype).eps * most, label
