"""Optimizer steps over lists of rejected items, against the plain computation of list_pairs.py."""

from __future__ import annotations

from dataclasses import replace

import list_pairs
import numpy as np
import pytest
import torch
from list_pairs import Mine, assert_same, by_definition, made, plain, rewards, taken

from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.losses.base import Loss
from rosepo_bench.losses.compiled import CDPO, CPO, DMPO, DPO, IPO, ORPO, SDPO, IPOSum, Robust, RosePO, SimPO


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return list_pairs.model()


LISTS = [CDPO(beta=0.3), RosePO(beta=0.4), RosePO(form="odds", beta=0.4), SDPO(beta=0.2), DMPO(beta=0.3)]
SINGLE = [DPO(beta=0.3), Robust(beta=0.3), IPO(), IPOSum(), SimPO(gamma=0.7), CPO(sft_weight=0.6), ORPO(beta=0.5)]
CASES = [(loss, k, ragged) for loss in LISTS for k, ragged in ((1, False), (3, False), (3, True))]
CASES += [(loss, 1, False) for loss in SINGLE]


@pytest.mark.parametrize(("loss", "k", "ragged"), CASES, ids=[f"{c[0]}, K={c[1]}, {c[2]}" for c in CASES])
def test_a_step_is_the_mean_of_its_pairs(model: LanguageModel, loss: Loss, k: int, ragged: bool) -> None:
    """Loss and every gradient, in one pass and in several."""
    sequences, pairs = made(k, ragged, most=min(0.4, loss.max_epsilon))
    each = rewards(model, sequences, pairs, loss)
    mean = torch.stack([by_definition(loss, *pair) for pair in each]).mean()
    wanted = plain(model, mean)
    for budget in (10_000, 130):
        told, gradients, *_ = taken(model, sequences, pairs, loss, budget)
        assert told["loss"] == pytest.approx(float(mean), rel=1e-9)
        right = np.mean([bool((w > lost).all()) for w, lost, _, _ in each])
        margin = np.mean([loss.beta * float(w - lost.mean()) for w, lost, _, _ in each])  # type: ignore[attr-defined]
        assert (told["accuracy"], told["margin"]) == pytest.approx((right, margin), rel=1e-9)
        assert_same(wanted, gradients)


def test_plain_torch_has_the_gradient_of_the_compiled_operator(model: LanguageModel) -> None:
    sequences, pairs = made(1, False, most=0.0)
    told, gradients, *_ = taken(model, sequences, pairs, Mine(), 130)
    wanted, other, *_ = taken(model, sequences, pairs, DPO(beta=0.3), 130)
    assert told == pytest.approx(wanted)
    assert_same(other, gradients)


@pytest.mark.parametrize("lists", [1, 3])
def test_a_list_is_as_long_as_it_says(model: LanguageModel, lists: int) -> None:
    """A table with more columns than any list needs changes nothing."""
    sequences, pairs = made(lists, False, most=0.4)
    assert pairs.reference is not None
    wide = replace(
        pairs,
        titles=np.pad(pairs.titles, ((0, 0), (0, 2)), constant_values=-1),
        reference=np.pad(pairs.reference, ((0, 0), (0, 2)), constant_values=np.nan),
        epsilon=np.pad(pairs.epsilon, ((0, 0), (0, 2)), constant_values=np.nan),
    )
    wide.check(RosePO())
    told, gradients, *_ = taken(model, sequences, wide, RosePO(), 130)
    wanted, other, *_ = taken(model, sequences, pairs, RosePO(), 130)
    assert told == pytest.approx(wanted, rel=1e-12)
    assert_same(other, gradients)
