"""Losses as components: each one's compiled operator is its own plain formula, and what it cannot take is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rosepo_bench.base.component import field_type
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.plugins import registry
from rosepo_bench.engine.training.pair_loss import Part, own_beta, pair_losses, rewards
from rosepo_bench.engine.training.steps import TrainingPairs
from rosepo_bench.engine.training.whole_step import checked
from rosepo_bench.losses.arguments import Pairs
from rosepo_bench.losses.base import Columns, Loss
from rosepo_bench.losses.compiled import DPO, KTO, Compiled, RosePO

LOSSES: dict[str, type[Loss]] = registry(Loss).found
MANY = {name for name, loss in LOSSES.items() if loss.many}
ROWS = 9


def changed(kind: type[Loss]) -> Loss:
    """The loss with every number other than its default."""
    fields = [field for field in dataclasses.fields(kind) if field_type(kind, field) is float]
    return kind(**{field.name: 0.7 * field.default + 0.01 for field in fields})


def part_of(loss: Loss, k: int, seed: int = 0) -> Part:
    draw = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=draw, dtype=torch.float64)

    logps = (-0.5 - 8 * uniform(ROWS, 1 + k)).requires_grad_()
    reference = -0.5 - 8 * uniform(ROWS, 1 + k) if "reference" in loss.needs else None
    tokens = torch.randint(1, 7, (ROWS, 1 + k), generator=draw)
    return Part(logps, reference, tokens, loss.max_epsilon * uniform(ROWS, k))


def columns_of(loss: Loss, *names: str) -> Columns:
    """What a whole step could have decided; z, without which KTO has no loss, always."""
    draw = torch.Generator().manual_seed(1)
    found = {name: 0.2 + torch.rand(ROWS, generator=draw, dtype=torch.float64) for name in names}
    z = torch.tensor(0.8, dtype=torch.float64) if loss.of_whole_step == {"mismatched"} else None
    return Columns(kl=z, **found)


def by_formula(loss: Loss, part: Part, columns: Columns) -> tuple[Tensor, Tensor]:
    """Losses and their gradient from ``__call__`` alone."""
    losses = loss(rewards(loss, part, columns))[:, 0]
    losses = losses if columns.weight is None else columns.weight * losses
    return losses.detach(), torch.autograd.grad(losses.sum(), part.logps)[0]


CASES = [(name, k) for name in LOSSES for k in ((1, 3) if name in MANY else (1,))]


@pytest.mark.parametrize("columns", [(), ("beta", "weight")], ids=["own β", "β and weight of each pair"])
@pytest.mark.parametrize("settings", ["defaults", "changed"])
@pytest.mark.parametrize(("name", "k"), CASES)
def test_the_compiled_operator_is_the_formula(name: str, k: int, settings: str, columns: tuple[str, ...]) -> None:
    loss = changed(LOSSES[name]) if settings == "changed" else LOSSES[name]()
    assert loss.kernel is not None
    part, given = part_of(loss, k), columns_of(loss, *columns)
    wanted, slope = by_formula(loss, part, given)
    for impl in ("cpp", "reference"):
        losses, _ = pair_losses(loss, part, given, impl)
        (found,) = torch.autograd.grad(losses.sum(), part.logps)
        torch.testing.assert_close(losses.detach(), wanted, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(found, slope, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_setting_of_a_loss_acts(name: str) -> None:
    """Those that the whole step reads are tested there."""
    kind, elsewhere = LOSSES[name], {"beta_prime", "a", "momentum", "dropped"}
    plain = kind()
    for field in dataclasses.fields(kind):
        if field_type(kind, field) is float and field.name not in elsewhere:
            other = dataclasses.replace(plain, **{field.name: 0.5 * field.default})
            part, given = part_of(plain, 1), columns_of(plain)
            one, two = (pair_losses(loss, part, given, "cpp")[0] for loss in (plain, other))
            assert (one - two).abs().min() > 1e-6, field.name


@pytest.mark.parametrize("impl", ["cpp", "reference"])
def test_a_weight_for_each_term_of_each_pair(impl: str) -> None:
    loss = KTO(desirable=1.7, undesirable=0.3)
    part, given = part_of(loss, 1), columns_of(loss, "desirable", "undesirable", "beta", "weight")
    wanted, slope = by_formula(loss, part, given)
    losses, told = pair_losses(loss, part, given, impl)
    torch.testing.assert_close(losses.detach(), wanted, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(losses.sum(), part.logps)[0], slope, rtol=1e-10, atol=1e-12)
    _, plainly = pair_losses(loss, part, given._replace(desirable=None, undesirable=None), impl)
    torch.testing.assert_close(told, plainly)


def odds_of(epsilon: float, k: int) -> Tensor:
    """q of the chosen and of k rejected responses: minus the gradient at rewards that are all alike, plus 1/(1+k)."""
    part = part_of(DPO(), k)
    alike = part._replace(reference=part.logps.detach(), epsilon=torch.full((1, k), epsilon).expand(ROWS, k).double())
    losses, _ = pair_losses(RosePO(form="odds"), alike, Columns(), "cpp")
    return 1 / (1 + k) - torch.autograd.grad(losses.sum(), part.logps)[0][0]


def test_odds_are_the_posterior_of_pairwise_probabilities() -> None:
    """Three rejected with ε = ½ are four equally likely ones; ε = ⅕ is a quarter as likely as the chosen one."""
    torch.testing.assert_close(odds_of(0.5, 3), torch.full((4,), 0.25, dtype=torch.float64))
    torch.testing.assert_close(odds_of(0.2, 3), torch.tensor([4, 1, 1, 1], dtype=torch.float64) / 7)
    torch.testing.assert_close(odds_of(0.3, 1), torch.tensor([0.7, 0.3], dtype=torch.float64))
    torch.testing.assert_close(odds_of(0.0, 2), torch.tensor([1.0, 0, 0], dtype=torch.float64))


def test_odds_are_finite_at_both_ends() -> None:
    for epsilon in (1 - 1e-9, 1.0):  # several certain ones share all
        assert odds_of(epsilon, 3).tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3], abs=1e-5)
    assert odds_of(0.0, 3).tolist() == [1.0, 0.0, 0.0, 0.0]


def test_forms_agree_for_one_rejected_response() -> None:
    part = part_of(RosePO(), 1)
    part = part._replace(epsilon=0.99 * part.epsilon)
    odds, mean = (pair_losses(RosePO(form=form), part, Columns(), "cpp")[0] for form in ("odds", "mean"))  # type: ignore[arg-type]
    torch.testing.assert_close(odds, mean, rtol=1e-11, atol=1e-12)


# --- what is refused ------------------------------------------------------------------------------------------------


def pairs(loss: Loss, k: int = 1, epsilon: float = 0.0, **without: Any) -> TrainingPairs:
    """Pairs that the loss can take, but for what is said."""
    examples: Any = None
    whole = {"reference": np.zeros((4, 1 + k)), "partner": np.ones(4, np.int64), "partner_reference": np.zeros(4)}
    return TrainingPairs(
        examples, np.tile(np.arange(1 + k), (4, 1)), epsilon=np.full((4, k), epsilon), **{**whole, **without}
    )


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_pairs_at_the_limits_are_taken_and_beyond_them_refused_by_the_losss_name(name: str) -> None:
    loss, called = LOSSES[name](), f"loss '{name}' "
    most = loss.max_epsilon
    pairs(loss, epsilon=most).check(loss)
    for epsilon in (most + 0.01, -0.01, np.nan):
        with pytest.raises(UserError, match=f"^{called}takes ε from 0 to {most:g}, a pair has {epsilon:g}"):
            pairs(loss, epsilon=epsilon).check(loss)
    if loss.many:
        pairs(loss, k=3).check(loss)
    else:
        with pytest.raises(UserError, match=f"^{called}takes one rejected response, the pairs have 3"):
            pairs(loss, k=3).check(loss)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_what_a_loss_needs_is_asked_for(name: str) -> None:
    loss = LOSSES[name]()
    absent = pairs(loss, reference=None)
    if "reference" in loss.needs:
        with pytest.raises(UserError, match=f"loss '{name}' needs the reference model's log-probs, and there are none"):
            absent.check(loss)
    else:
        absent.check(loss)
    for part in ("partner", "partner_reference"):
        alone = pairs(loss, **{part: None})
        if "mismatched" in loss.of_whole_step:
            with pytest.raises(UserError, match=f"loss '{name}' reads mismatched pairs, and there are none"):
                alone.check(loss)
        else:
            alone.check(loss)


def test_what_stands_beyond_the_end_of_a_list_is_not_looked_at() -> None:
    """ε of a response that is not there."""
    given = pairs(RosePO(), k=2)
    given.titles[1, 2], given.epsilon[1, 1] = -1, 7.0
    given.check(RosePO())
    given.epsilon[2, 1] = 7.0
    with pytest.raises(UserError, match="a pair has 7"):
        given.check(RosePO())


def test_a_pair_without_a_rejected_response_is_refused() -> None:
    given = pairs(RosePO(), k=2)
    given.titles[3, 1:] = -1
    with pytest.raises(UserError, match="pair 3 has no rejected response"):
        given.check(RosePO())


class Mine(Loss):
    """DPO in plain torch."""

    many = True
    beta: float = 0.3

    def __call__(self, pairs: Pairs) -> Tensor:
        return -torch.nn.functional.logsigmoid(pairs.beta * (pairs.chosen - pairs.rejected)).mean(1, keepdim=True)


class Flat(Mine):
    def __call__(self, pairs: Pairs) -> Tensor:
        return super().__call__(pairs)[:, 0]


class Number(Mine):
    def __call__(self, pairs: Pairs) -> Any:
        return 1.0


class Endless(Mine):
    def __call__(self, pairs: Pairs) -> Tensor:
        return torch.where(torch.arange(ROWS)[:, None] == 5, torch.nan, super().__call__(pairs))


class Detached(Mine):
    def __call__(self, pairs: Pairs) -> Tensor:
        return super().__call__(pairs).detach()


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (Flat(), rf"loss 'Flat' returned \[{ROWS}\]: want one value per pair, \[{ROWS}, 1\]"),
        (Number(), rf"loss 'Number' returned float: want one value per pair, \[{ROWS}, 1\]"),
        (Endless(), "loss 'Endless' is not finite: nan for pair 5"),
        (Detached(), "loss 'Detached' has no gradient: it must be computed from the pairs' rewards"),
    ],
)
def test_what_a_loss_of_others_gets_wrong_is_said_by_its_name(loss: Loss, said: str) -> None:
    with pytest.raises(UserError, match=said):
        pair_losses(loss, part_of(loss, 1), Columns(), "cpp")


ONES = torch.ones(4, dtype=torch.float64)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (Columns(weight=ONES[:3]), r"weight of the step has shape \[3\]: want \[4\]"),
        (Columns(beta=ONES[:, None]), r"beta of the step has shape \[4, 1\]: want \[4\]"),
        (Columns(kl=ONES), r"kl of the step has shape \[4\]: want \[\]"),
        (Columns(weight=ONES * torch.nan), "weight of the step holds a value that is not finite or too small"),
        (Columns(weight=-ONES), "weight of the step holds a value that is not finite or too small"),
        (Columns(beta=0 * ONES), "beta of the step holds a value that is not finite or too small"),
    ],
)
def test_what_a_loss_of_others_decides_wrongly_is_said_by_its_name(columns: Columns, said: str) -> None:
    with pytest.raises(UserError, match=f"^loss 'Mine': {said}"):
        checked(Mine(), columns, 4)
    fine = Columns(beta=ONES, weight=0 * ONES, kl=ONES[0], desirable=0 * ONES, undesirable=ONES)
    assert checked(Mine(), fine, 4) is fine


def test_a_loss_of_others_takes_what_the_step_decides() -> None:
    loss, dpo = Mine(), DPO(beta=0.3)
    part, given = part_of(loss, 1), columns_of(loss, "beta", "weight")
    assert own_beta(loss) == 0.3
    for columns in (Columns(), given):
        mine, theirs = (pair_losses(one, part, columns, "cpp")[0] for one in (loss, dpo))
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12)


class Renamed(DPO):
    """Another package's: the formula of its parent under a name of its own."""

    name = "renamed"


class Doubled(DPO):
    """Another package's: its own formula, which the operator does not know."""

    name = "doubled"

    def __call__(self, pairs: Pairs) -> Tensor:
        return 2 * super().__call__(pairs)


def test_losses_of_others_may_begin_from_a_compiled_one() -> None:
    part, plain = part_of(DPO(), 1), DPO(beta=0.3)
    wanted, _ = pair_losses(plain, part, Columns(), "cpp")
    assert (Renamed().kernel, Doubled().kernel) == ("dpo", None)
    assert not issubclass(Mine, Compiled)
    for loss, times in ((Renamed(beta=0.3), 1), (Doubled(beta=0.3), 2)):
        torch.testing.assert_close(pair_losses(loss, part, Columns(), "cpp")[0], times * wanted)
