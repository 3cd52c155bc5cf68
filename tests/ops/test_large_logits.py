"""Logits so large that their rounding exceeds what exp can take: probabilities stay between 0 and 1."""

from __future__ import annotations

from dataclasses import replace

import attention_cases
import logprob_cases
import pytest
import torch


@pytest.mark.parametrize("scale", [1e-6, 0.3, 1.0])
@pytest.mark.parametrize("vocabulary", [4, 37])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e12), (torch.float32, 1e36), (torch.float64, 1e30)])
def test_sequence_logprob(dtype: torch.dtype, most: float, vocabulary: int, scale: float) -> None:
    case = logprob_cases.draw(3, vocabulary, 5, dtype, bias=True, logit_scale=scale)
    assert case.bias is not None
    case.bias[1] = most
    kept, again = (logprob_cases.call(case, impl="cpp", memory_budget=budget) for budget in (1 << 20, 0))
    for name, wanted in zip(logprob_cases.QUANTITIES, logprob_cases.exact(case), strict=True):
        largest = max(1.0, logprob_cases.largest(wanted))
        assert logprob_cases.error(kept[name], wanted) <= 32 * torch.finfo(dtype).eps * largest, name
    # Computed again, such a probability is 0 or 1 as the rounding falls; a gradient is no more than with 1 everywhere.
    ones = logprob_cases.magnitudes(case)
    assert all(logprob_cases.largest(again[f"grad {name}"]) <= 40 * ones[f"grad {name}"] for name in ("weight", "bias"))


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e12), (torch.float32, 1e18), (torch.float64, 1e30)])
def test_forest_attention(dtype: torch.dtype, most: float) -> None:
    """A query's own key has by far the largest score, which is rounded differently where it is computed again."""
    end, depth = attention_cases.forest(33, seed=1)
    case = attention_cases.draw(end, depth, dtype=dtype, width=3)
    case = replace(case, key=torch.full_like(case.key, most), scaling=0.3)
    found = attention_cases.call(case, impl="cpp")
    assert all(bool(x.isfinite().all()) for x in found.values())
    # Each probability is at most 1, so each gradient at most that of the queries that see its key, added up.
    assert float(found["grad value"].abs().max()) <= 33 * float(case.grad.abs().max())
