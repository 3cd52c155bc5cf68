"""What a loss decides over a whole optimizer step: against the plain computation of list_pairs.py, by hand, and in
trainings that are killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import list_pairs
import numpy as np
import pytest
import torch
from list_pairs import ENCODER, PROMPTER, Mine, N, assert_same, by_definition, logp, made, plain, rewards, taken
from small_models import language_model, network

from rosepo_bench.base.config import PreferenceConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.work import Work
from rosepo_bench.engine.forest import Limits
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.prompts.examples import grouped
from rosepo_bench.engine.training.loop import FitReport
from rosepo_bench.engine.training.meter import Meter
from rosepo_bench.engine.training.preference import train_preference
from rosepo_bench.engine.training.steps import Steps, TrainingPairs
from rosepo_bench.engine.training.whole_step import WholeStep
from rosepo_bench.losses.base import Columns, Loss, StepRewards
from rosepo_bench.losses.compiled import CDPO, DPO, KTO
from rosepo_bench.losses.whole_step import FLOOR, BetaDPO, DrDPO


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return list_pairs.model()


def step_of(margins: np.ndarray, losses: np.ndarray | None = None) -> StepRewards:
    value = torch.from_numpy(margins)
    zero = torch.zeros_like(value)
    return StepRewards(value, zero, zero if losses is None else torch.from_numpy(losses), value)


RNG = np.random.default_rng(0)

# --- a step against its definition ----------------------------------------------------------------------------------


class Looks(Mine):
    """Decides nothing, and remembers what it was shown."""

    of_whole_step = frozenset({"pairs", "mismatched"})
    seen: ClassVar[list[StepRewards]] = []

    def of_step(self, step: StepRewards, memory: dict[str, float], rng: np.random.Generator) -> Columns:
        Looks.seen.append(step)
        return Columns()


@pytest.mark.parametrize("ragged", [False, True])
def test_a_loss_sees_every_pair_of_the_step(model: LanguageModel, ragged: bool) -> None:
    sequences, pairs = made(3, ragged, most=0.4)
    assert pairs.partner is not None
    assert pairs.partner_reference is not None
    each = rewards(model, sequences, pairs, Looks())
    other = [float(logp(model, sequences, pairs, row, int(pairs.partner[row]))) for row in range(N)]
    for budget in (10_000, 130):
        Looks.seen.clear()
        *_, rows, _ = taken(model, sequences, pairs, Looks(), budget)
        assert sorted(rows) == list(range(N))
        (step,) = Looks.seen
        close = {"rtol": 1e-9, "atol": 1e-9, "check_dtype": False}
        torch.testing.assert_close(step.chosen, torch.stack([each[row][0] for row in rows]).detach(), **close)
        torch.testing.assert_close(step.rejected, torch.stack([each[row][1].mean() for row in rows]).detach(), **close)
        losses = [-torch.nn.functional.logsigmoid(0.3 * (w - lost)).mean() for w, lost, _, _ in each]
        torch.testing.assert_close(step.loss, torch.stack([losses[row] for row in rows]).detach(), **close)
        assert step.mismatched is not None
        torch.testing.assert_close(
            step.mismatched, torch.from_numpy((np.array(other) - pairs.partner_reference)[rows]), **close
        )
        assert not any(column.requires_grad for column in step)


@pytest.mark.parametrize("ragged", [False, True])
def test_dr_dpo_has_the_gradient_of_its_definition(model: LanguageModel, ragged: bool) -> None:
    loss = DrDPO(beta=0.3, beta_prime=0.7)
    sequences, pairs = made(3, ragged, most=0.4)
    each = torch.stack([by_definition(CDPO(beta=0.3), *pair) for pair in rewards(model, sequences, pairs, loss)])
    wanted = plain(model, -0.7 * (torch.exp(-each / 0.7).mean().log()))
    for budget in (10_000, 130):
        _, gradients, columns, rows, _ = taken(model, sequences, pairs, loss, budget)
        weights = N * torch.softmax(-each.detach() / 0.7, dim=0)[torch.from_numpy(rows)]
        torch.testing.assert_close(columns.weight, weights, rtol=1e-9, atol=1e-12)
        assert_same(wanted, gradients)


@pytest.mark.parametrize("unpaired", [False, True])
def test_kto_reads_mismatched_pairs_of_the_whole_step(model: LanguageModel, unpaired: bool) -> None:
    loss = KTO(beta=0.4, desirable=1.3, undesirable=0.6, unpaired=unpaired)
    sequences, pairs = made(1, False, most=0.0)
    assert pairs.partner is not None
    assert pairs.partner_reference is not None
    said = [logp(model, sequences, pairs, row, int(pairs.partner[row])).detach() for row in range(N)]
    for shift in (-30.0, 30.0):  # z is at least 0: once it is, once it is not
        told_reference = pairs.partner_reference + shift
        given = TrainingPairs(
            pairs.examples, pairs.titles, pairs.reference, pairs.epsilon, pairs.partner, told_reference
        )
        z = max(0.0, float(np.mean([float(one) for one in said] - told_reference)))
        assert (z > 0) == (shift < 0)
        for budget in (10_000, 130):
            told, gradients, columns, rows, _ = taken(model, sequences, given, loss, budget)
            assert float(columns.kl) == pytest.approx(z, rel=1e-9)
            terms = []
            for place, row in enumerate(rows.tolist()):
                w, lost, _, _ = rewards(model, sequences, given, loss)[row]
                good, bad = (
                    (float(one[place]) for one in (columns.desirable, columns.undesirable)) if unpaired else (1.3, 0.6)
                )
                assert not unpaired or sorted((good, bad)) in ([0.0, 0.6], [0.0, 1.3])
                kl = float(columns.kl)
                terms.append(good * torch.sigmoid(-0.4 * (w - kl)) + bad * torch.sigmoid(-0.4 * (kl - lost[0])))
            mean = torch.stack(terms).mean()
            assert told["loss"] == pytest.approx(float(mean), rel=1e-9)
            for name, value in plain(model, mean).items():
                torch.testing.assert_close(gradients[name], value, rtol=1e-7, atol=1e-9, msg=name)


def test_beta_dpo_scales_beta_and_leaves_out_a_fifth(model: LanguageModel) -> None:
    loss = BetaDPO(beta=0.3, a=0.5, momentum=0.9, dropped=0.25)
    sequences, pairs = made(3, True, most=0.4)
    margins = np.array([float(w - lost.mean()) for w, lost, _, _ in rewards(model, sequences, pairs, loss)])
    found = [taken(model, sequences, pairs, loss, budget) for budget in (10_000, 130)]
    for told, _, columns, rows, memory in found:
        assert memory["mean"] == pytest.approx(margins.mean(), rel=1e-9)
        beta = np.maximum(0.3 * (1 + 0.5 * (margins - margins.mean())), 0.3e-3)[rows]
        np.testing.assert_allclose(columns.beta.numpy(), beta, rtol=1e-9)
        weight = columns.weight.numpy()
        assert (weight == 0).sum() == N // 4
        assert weight.mean() == pytest.approx(1)
        each = rewards(model, sequences, pairs, loss)
        terms = [
            w * float(by_definition(CDPO(beta=float(b)), *each[row]))
            for w, b, row in zip(weight, columns.beta, rows, strict=True)
        ]
        assert told["loss"] == pytest.approx(np.mean(terms), rel=1e-9)
    kept = [set(rows[columns.weight.numpy() > 0]) for _, _, columns, rows, _ in found]
    memory = {"mean": 1.0, "spread": 2.0}
    loss.of_step(_told(margins), memory, np.random.default_rng(0))
    assert memory["mean"] == pytest.approx(0.9 * 1.0 + 0.1 * margins.mean())
    assert len(kept[0]) == len(kept[1]) == N - N // 4


def _told(margins: np.ndarray) -> StepRewards:
    value = torch.from_numpy(margins)
    return StepRewards(value, torch.zeros_like(value), torch.zeros_like(value), None)


def test_the_lots_of_a_step_do_not_depend_on_its_packing(model: LanguageModel) -> None:
    """Which pairs beta_dpo leaves out, and which item of a pair kto takes: by row, in one pass and in several."""
    sequences, pairs = made(1, False, most=0.0)
    for loss, column in ((KTO(unpaired=True), "desirable"), (BetaDPO(dropped=0.25), "weight")):
        found = []
        for budget in (10_000, 130):
            *_, columns, rows, _ = taken(model, sequences, pairs, loss, budget)
            found.append(dict(zip(rows.tolist(), (getattr(columns, column) > 0).tolist(), strict=True)))
        assert found[0] == found[1]
        assert 0 < sum(found[0].values()) < N


# --- by hand --------------------------------------------------------------------------------------------------------


def test_beta_follows_the_margin_and_stays_above_its_floor() -> None:
    """Margins 0, 1 and 5 have the mean 2; β_i = 0.1 (1 + 0.6 (Δ - 2))."""
    found = BetaDPO(beta=0.1, dropped=0.0).of_step(step_of(np.array([0.0, 1.0, 5.0])), {}, RNG)
    assert found.beta is not None
    assert found.beta.tolist() == pytest.approx([0.1 * FLOOR, 0.04, 0.28])
    assert found.weight is not None
    assert found.weight.tolist() == [1.0, 1.0, 1.0]


def test_the_moving_mean_is_kept_from_step_to_step() -> None:
    loss, memory, margin = BetaDPO(momentum=0.75, a=0.5, beta=1.0), {}, np.array([1.0, 3.0])
    loss.of_step(step_of(margin), memory, RNG)
    assert memory == {"mean": 2.0, "spread": 1.0}, "the first step's own"
    found = loss.of_step(step_of(margin + 4), memory, RNG)
    assert memory["mean"] == pytest.approx(0.75 * 2 + 0.25 * 6)
    assert found.beta is not None
    assert found.beta.tolist() == pytest.approx([1 + 0.5 * (5 - 3), 1 + 0.5 * (7 - 3)])


@pytest.mark.parametrize("pairs", [1, 10, 64])
def test_a_fifth_is_left_out_and_the_others_make_up_for_it(pairs: int) -> None:
    weight = BetaDPO().of_step(step_of(np.random.default_rng(1).normal(size=pairs)), {}, RNG).weight
    assert weight is not None
    assert int((weight == 0).sum()) == round(0.2 * pairs)
    assert float(weight.mean()) == pytest.approx(1)
    assert len(weight[weight > 0].unique()) == 1


def test_pairs_far_from_the_mean_are_left_out_more_often() -> None:
    margin, kept = np.array([-3.0, -0.1, 0.0, 0.1, 3.0]), np.zeros(5)
    for seed in range(200):
        weight = BetaDPO(dropped=0.4).of_step(step_of(margin), {}, np.random.default_rng(seed)).weight
        assert weight is not None
        kept += weight.numpy() > 0
    assert kept[[0, 4]].max() + 30 < kept[1:4].min()


def test_a_large_beta_prime_weighs_all_pairs_alike() -> None:
    losses = np.array([0.1, 0.7, 2.0])
    even, sharp = (DrDPO(beta_prime=b).of_step(step_of(losses, losses), {}, RNG).weight for b in (1e6, 0.5))
    assert even is not None
    assert sharp is not None
    assert even.tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert sharp.tolist() == pytest.approx(3 * np.exp(-losses / 0.5) / np.exp(-losses / 0.5).sum())


def test_unpaired_kto_takes_one_item_of_each_pair_by_lot() -> None:
    loss, step = KTO(unpaired=True, desirable=1.3, undesirable=0.6), step_of(np.zeros(1000))
    drawn = []
    for seed in (0, 0, 1):
        found = loss.of_step(step, {}, np.random.default_rng(seed))
        assert found.desirable is not None
        assert found.undesirable is not None
        assert set(zip(found.desirable.tolist(), found.undesirable.tolist(), strict=True)) == {(1.3, 0.0), (0.0, 0.6)}
        drawn.append((found.desirable > 0).tolist())
    assert drawn[0] == drawn[1] != drawn[2]
    assert 450 < sum(drawn[0]) < 550


# --- whole trainings ------------------------------------------------------------------------------------------------


class KilledError(Exception):
    pass


def trained(
    loss: Loss,
    folder: Path | None = None,
    *,
    budget: int = 200,
    dies_at: int = 0,
    model: LanguageModel | None = None,
    **settings: Any,
) -> tuple[list[torch.Tensor], FitReport, Meter]:
    """The weights after a training of nine steps; ``dies_at``: the step at which it is killed."""
    model, meter = model or list_pairs.model(), Meter()
    sequences, pairs = made(1, False, most=0.4 if loss.max_epsilon else 0.0)
    config = PreferenceConfig(**{"batch": 5, "epochs": 3, "lr": 3e-3, **settings})
    with pytest.MonkeyPatch.context() as patch:
        if dies_at:
            patch.setattr(Steps, "backward", killed(dies_at))
        report = train_preference(
            model, PROMPTER, sequences, pairs, config, loss,
            meter=meter, batch_tokens=budget, work=Work(3, "toy", folder, 0.0),
        )  # fmt: skip
    return [p.detach() for p in model.network.parameters()], report, meter


def killed(steps: int) -> Any:
    backward, left = Steps.backward, iter(range(steps))

    def dying(*given: Any) -> dict[str, float]:
        if next(left, None) is None:
            raise KilledError
        return backward(*given)

    return dying


def apart(one: list[torch.Tensor], two: list[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, two, strict=True))


WHOLE: list[Loss] = [KTO(), KTO(unpaired=True), DrDPO(), BetaDPO(a=0.3)]


@pytest.mark.parametrize("loss", WHOLE, ids=str)
def test_a_killed_training_goes_on_exactly(loss: Loss, tmp_path: Path) -> None:
    """What beta_dpo remembers, what kto draws at each step."""
    straight, report, meter = trained(loss)
    for death in (2, 3):
        with pytest.raises(KilledError):
            trained(loss, tmp_path, dies_at=death)
    resumed, last, rest = trained(loss, tmp_path)
    assert apart(straight, resumed) == 0
    assert (last.curves, last.steps) == (report.curves, 6)
    assert (meter.pairs, rest.pairs, rest.pairs_seen) == (36, 6, 36)
    assert meter.step_seconds > 0


@pytest.mark.parametrize("loss", WHOLE, ids=str)
def test_a_training_does_not_depend_on_the_packing(loss: Loss) -> None:
    (one, _, few), (two, _, many) = (trained(loss, budget=budget) for budget in (10_000, 100))
    assert few.pairs == many.pairs
    assert apart(one, two) < 1e-8


def test_what_beta_dpo_remembers_matters() -> None:
    """Or the two tests above could not see it."""
    assert apart(trained(BetaDPO(a=0.3))[0], trained(BetaDPO(a=0.3, momentum=0.0))[0]) > 1e-6


def test_plain_torch_trains_to_the_weights_of_the_compiled_operator() -> None:
    (mine, one, _), (theirs, two, _) = trained(Mine()), trained(DPO(beta=0.3))
    assert apart(mine, theirs) < 1e-9
    assert one.last_loss == pytest.approx(two.last_loss, rel=1e-9)
    assert apart(mine, trained(DPO(beta=0.5))[0]) > 1e-4


def test_steps_stand_above_epochs() -> None:
    _, report, meter = trained(DPO(), steps=5, epochs=1)
    assert (report.steps, report.planned_steps, meter.pairs_seen) == (5, 5, 30)
    _, report, meter = trained(DPO(), epochs=1)
    assert (report.steps, meter.pairs_seen) == (2, 12)


def test_a_whole_step_is_seen_without_dropout() -> None:
    sizes = {"vocab_size": ENCODER.size, "max_position_embeddings": 256}
    drops = {"resid_pdrop": 0.1, "embd_pdrop": 0.1}

    def gpt2(**changes: Any) -> LanguageModel:
        return language_model(network("gpt2", torch.float64, **{**sizes, "n_positions": 256, **changes}))

    said = r"loss 'kto' looks at a whole step without dropout; set preference.dropout = false"
    with pytest.raises(UserError, match=said):
        trained(KTO(), model=gpt2(**drops), dropout=True)
    trained(DPO(), model=gpt2(**drops), dropout=True, steps=1)
    trained(KTO(), model=gpt2(**drops), steps=1)
    trained(KTO(), model=gpt2(resid_pdrop=0.0, embd_pdrop=0.0), dropout=True, steps=1)


def test_pairs_are_checked_before_a_training() -> None:
    sequences, pairs = made(1, False, most=0.0)
    with pytest.raises(UserError, match="loss 'kto' reads mismatched pairs, and there are none"):
        train_preference(
            list_pairs.model(), PROMPTER, sequences, replace(pairs, partner=None), PreferenceConfig(), KTO(),
            meter=Meter(), batch_tokens=200, work=Work(0),
        )  # fmt: skip


def test_a_step_of_single_pairs_reads_no_other_pair(model: LanguageModel) -> None:
    """With a tree for each prompt a step may hold one pair of a user: its z is that pair's, and costs one prompt."""
    sequences, pairs = made(1, False, most=0.0)
    limits = Limits(256, list_pairs.ENCODER.size, 10_000)
    steps = Steps(model, pairs, KTO(), list_pairs.LENGTHS, 10_000, Meter())
    given = (list_pairs.PROMPTER, sequences, limits, 3)
    users = grouped(
        list_pairs.PROMPTER, sequences, pairs.examples, pairs.titles, limits=limits, compared=True, alone=True
    )
    alone, together = (WholeStep.of(steps, *given, alone=single) for single in (True, False))
    for (group,) in users[:4]:
        (row,) = group.rows(2)
        assert alone.partners[int(row)].examples == 1 < together.partners[int(row)].examples
        found = [float(one.columns([group], 0, {}).kl) for one in (alone, together)]
        assert found[0] == pytest.approx(found[1], rel=1e-9)
