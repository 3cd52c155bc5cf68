"""What must hold for any input: symmetries, special cases, and what a shift of all rewards does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_errors import draw, evaluate, implementations
from torch import Tensor

from rosepo_bench.losses.formulas import LOSSES

SEEDS = st.integers(0, 10**6).map(str)
SOME = settings(max_examples=10, deadline=None)
MANY = [name for name, row in LOSSES.items() if row.many]
OF_MARGINS = ["dpo", "cdpo", "rosepo", "sdpo", "robust", "ipo_sum", "dmpo"]
implementation = pytest.mark.parametrize("implementation", implementations())


def close(x: Tensor, y: Tensor) -> None:
    torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


def same(a: dict[str, Any], b: dict[str, Any], implementation: str) -> None:
    for x, y in zip(evaluate(a, implementation)[:3], evaluate(b, implementation)[:3], strict=True):
        close(x, y)


def inputs(loss: str, seed: str, pairs: int = 12, rejected: int = 1) -> dict[str, Any]:
    return draw(loss, pairs, rejected, torch.float64, seed)


@implementation
@pytest.mark.parametrize("loss", LOSSES)
@given(seed=SEEDS)
@SOME
def test_the_order_of_pairs_does_not_matter(loss: str, implementation: str, seed: str) -> None:
    a = inputs(loss, seed, rejected=3 if LOSSES[loss].many else 1)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(int(seed)))
    b = {name: x[order] if isinstance(x, Tensor) and x.dim() else x for name, x in a.items()}
    (*found, before), (*other, after) = evaluate(a, implementation), evaluate(b, implementation)
    for x, y in zip(found, other, strict=True):
        close(x[order], y)
    close(torch.stack(before), torch.stack(after))


@implementation
@pytest.mark.parametrize("loss", MANY)
@given(seed=SEEDS)
@SOME
def test_the_order_of_rejected_does_not_matter(loss: str, implementation: str, seed: str) -> None:
    a = inputs(loss, seed, rejected=5)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(int(seed)))
    b = {name: x[:, order] if isinstance(x, Tensor) and x.dim() == 2 else x for name, x in a.items()}
    found, other = evaluate(a, implementation), evaluate(b, implementation)
    close(found[0], other[0])
    close(found[1], other[1])
    close(found[2][:, order], other[2])


@implementation
@pytest.mark.parametrize("loss", OF_MARGINS)
@given(seed=SEEDS, shift=st.floats(-50, 50))
@SOME
def test_a_shift_of_all_rewards_changes_nothing(loss: str, implementation: str, seed: str, shift: float) -> None:
    a = inputs(loss, seed, rejected=4 if LOSSES[loss].many else 1)
    b = a | {"chosen": a["chosen"] + shift, "rejected": a["rejected"] + shift}
    (_, chosen, rejected, _), other = evaluate(a, implementation), evaluate(b, implementation)
    for x, y in zip(evaluate(a, implementation)[:3], other[:3], strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)
    close(chosen, -rejected.sum(dim=1))


@implementation
@pytest.mark.parametrize("loss", ["cdpo", "rosepo", "robust"])
@given(seed=SEEDS)
@SOME
def test_without_smoothing_it_is_dpo(loss: str, implementation: str, seed: str) -> None:
    a = inputs(loss, seed) | {"epsilon": 0.0}
    same(a, {name: x for name, x in a.items() if name != "epsilon"} | {"loss": "dpo"}, implementation)


@implementation
@pytest.mark.parametrize("loss", ["rosepo", "cdpo"])
@given(seed=SEEDS)
@SOME
def test_many_rejected_without_smoothing_are_sdpo(loss: str, implementation: str, seed: str) -> None:
    a = inputs("sdpo", seed, rejected=6)
    same(a, a | {"loss": loss, "epsilon": 0.0}, implementation)


@implementation
@given(seed=SEEDS)
@SOME
def test_one_rejected_makes_sdpo_dmpo_and_dpo_equal(implementation: str, seed: str) -> None:
    a = inputs("dpo", seed)
    for loss in ("sdpo", "dmpo"):
        same(a, a | {"loss": loss}, implementation)


@implementation
@given(seed=SEEDS)
@SOME
def test_half_is_symmetric_and_one_swaps(implementation: str, seed: str) -> None:
    a = inputs("cdpo", seed)
    swapped = a | {
        "chosen": a["rejected"][:, 0],
        "rejected": a["chosen"].unsqueeze(1),
        "reference_chosen": a["reference_rejected"][:, 0],
        "reference_rejected": a["reference_chosen"].unsqueeze(1),
    }
    for epsilon, other in ((0.5, 0.5), (1.0, 0.0), (0.2, 0.8)):
        found = evaluate(a | {"epsilon": epsilon}, implementation)
        turned = evaluate(swapped | {"epsilon": other}, implementation)
        close(found[0], turned[0])
        close(found[1], turned[2][:, 0])


@implementation
@given(seed=SEEDS)
@SOME
def test_equal_rejected_are_one_and_its_mirror(implementation: str, seed: str) -> None:
    # K copies of one rejected response: DMPO sees one; the mean of ε is what counts for the chosen one.
    one = inputs("dmpo", seed)
    copies = {name: x.expand(-1, 4) if isinstance(x, Tensor) and x.dim() == 2 else x for name, x in one.items()}
    found, other = evaluate(one, implementation), evaluate(copies, implementation)
    close(found[0], other[0])
    close(found[2], other[2].sum(dim=1, keepdim=True))


@implementation
@pytest.mark.parametrize("loss", LOSSES)
@given(seed=SEEDS)
@SOME
def test_a_weight_multiplies(loss: str, implementation: str, seed: str) -> None:
    a = inputs(loss, seed, rejected=3 if LOSSES[loss].many else 1)
    weight = a.pop("weight")
    plain, weighted = evaluate(a, implementation), evaluate(a | {"weight": weight}, implementation)
    for x, y in zip(plain[:3], weighted[:3], strict=True):
        close((weight if x.dim() == 1 else weight.unsqueeze(1)) * x, y)
    assert plain[3] == weighted[3]


@implementation
@given(seed=SEEDS)
@SOME
def test_kto_of_a_shifted_reward_is_kto_of_a_shifted_z(implementation: str, seed: str) -> None:
    a = inputs("kto", seed)
    b = a | {"chosen": a["chosen"] - 2, "rejected": a["rejected"] - 2}
    same(a | {"kl": a["kl"] + 2}, b, implementation)


@implementation
@given(seed=SEEDS)
@SOME
def test_lengths_of_one_make_the_forms_of_ipo_equal(implementation: str, seed: str) -> None:
    a = inputs("ipo", seed)
    ones = {name: torch.ones_like(a[name]) for name in ("chosen_tokens", "rejected_tokens")}
    sums = {name: x for name, x in a.items() if name not in ones} | {"loss": "ipo_sum"}
    same(a | ones, sums, implementation)


@implementation
@given(seed=SEEDS)
@SOME
def test_cpo_without_its_second_term_is_dpo_without_a_reference(implementation: str, seed: str) -> None:
    a = inputs("cpo", seed) | {"sft_weight": 0.0, "epsilon": 0.0}
    zeros = {"reference_chosen": torch.zeros_like(a["chosen"]), "reference_rejected": torch.zeros_like(a["rejected"])}
    b = {name: a[name] for name in ("chosen", "rejected", "beta", "weight")}
    same(a, b | zeros | {"loss": "dpo"}, implementation)
