"""The item taken next is the chosen one, and training raises it over the rejected one: a planted preference of one
item over another, through the whole pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import planted
import pytest
from planted import get

from rosepo_bench.losses.compiled import RosePO
from rosepo_bench.preference.samplers.semantic import Semantic
from rosepo_bench.preference.smoothings.fixed import Constant, Zero
from rosepo_bench.preference.smoothings.predicted import Predicted
from rosepo_bench.runs.cells import Cell
from rosepo_bench.runs.composing import composed
from rosepo_bench.runs.methods import Preference

ONE, TWO = 1, 2  # two titles that are nearest to each other, so that either is rejected where the other is chosen
OTHERS = [item for item in range(22) if item not in (ONE, TWO)]
METHOD = Preference(
    name="planted",
    about="rejected: nearest to the chosen item",
    loss=RosePO(),
    sampler=Semantic(anchor="target", temperature=1e-4),
    smoothing=Zero(),
)
SETTINGS = (
    *("preference.pairs=16", "preference.steps_per_user=1", "preference.epochs=4", "preference.lr=2e-3"),
    *("oracles.sasrec.epochs=40", "oracles.sasrec.lr=0.01"),
)


def contest(winner: int, loser: int) -> planted.World:
    """Everybody's last training item is ``winner``; ``loser`` is nobody's history nor validation target."""
    draw, rows = np.random.default_rng(3), []
    titles = list(planted.titles()[:22])
    titles[ONE], titles[TWO] = "Marble Statue One", "Marble Statue Two"
    for user in range(planted.USERS):
        items = draw.permutation(OTHERS)[:6].tolist()
        items = [*items[:4], winner, items[4], loser if user % 2 else items[5]]
        rows += [(f"u{user}", item, planted.START + place) for place, item in enumerate(items)]
    return planted.World(tuple(titles), ("thing",) * len(titles), tuple(rows))


@pytest.fixture(scope="module", params=[(ONE, TWO), (TWO, ONE)], ids=["one wins", "two wins"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Cell, planted.World, int]:
    """A finished training, its world and the sign of the preference for ONE over TWO."""
    folder, world = tmp_path_factory.mktemp("orientation"), contest(*request.param)
    cell = planted.cell(folder / "out", world.write(folder), *SETTINGS, method=METHOD)
    assert cell.task.data.titles == world.titles
    assert cell.trained is not None
    get(cell, cell.trained)
    return cell, world, 1 if request.param == (ONE, TWO) else -1


def margins(run: tuple[Cell, planted.World, int], users: list[int], pairs: list[tuple[int, int]]) -> np.ndarray:
    """How much training moved the log-odds of the first over the second item at each user's last training step."""
    cell, world, _ = run
    prompts = [planted.prompt(cell, world, world.histories[user][:4]) for user in users]
    items = np.tile(np.array(pairs).ravel(), (len(users), 1))
    before, after = (
        planted.sums(planted.network(cell, stage), cell, world, prompts, items) for stage in (cell.sft, cell.trained)
    )
    moved = (after - before).reshape(len(users), -1, 2)
    return np.asarray(moved[:, :, 0] - moved[:, :, 1])


def test_pairs_hold_the_item_taken_next_first(run: tuple[Cell, planted.World, int]) -> None:
    cell, _, sign = run
    assert cell.pairing.titles("train").tolist() == [[ONE, TWO][::sign]] * 16


def test_the_planted_preference_rises_and_no_other(run: tuple[Cell, planted.World, int]) -> None:
    """For the pairs that were trained on and for users that were not."""
    cell, _, sign = run
    trained = cell.pairing.examples["train"].user.tolist()
    fresh = [user for user in range(planted.USERS) if user not in trained]
    assert len(fresh) == 8
    draw = np.random.default_rng(4)
    others = [tuple(draw.choice(OTHERS, 2, replace=False).tolist()) for _ in range(12)]
    for users in (trained, fresh):
        moved = sign * margins(run, users, [(ONE, TWO)])
        assert moved.min() > 0.5
        assert np.abs(margins(run, users, others).mean(axis=0)).mean() < 0.3 * moved.mean()


def test_stored_log_probs_and_report_say_so_too(run: tuple[Cell, planted.World, int]) -> None:
    cell, _, _ = run
    assert cell.trained is not None
    report = get(cell, cell.trained).report
    assert report["last_loss"] < report["first_loss"] == pytest.approx(np.log(2), abs=0.02)
    after = get(cell, cell.pairing.pair_logps("trained", cell.trained, ("train",)))["train"]
    moved = after - get(cell, cell.pairing.reference())["train"]
    assert (moved[:, 0] > moved[:, 1]).all()


def test_the_oracle_sides_with_what_everybody_takes(run: tuple[Cell, planted.World, int]) -> None:
    """No user of the other fold took the loser in training, all took the winner: the rejected item is unlikely to have
    been the next one."""
    cell, _, _ = run
    smoothed = other(cell, replace(METHOD, smoothing=Predicted())).smoothed
    assert smoothed.judging is not None
    judged = get(cell, smoothed.judging.stage)
    assert judged.delta["train"].max() < 0
    assert smoothed.epsilon("train").max() < 0.4


def other(cell: Cell, method: Preference) -> Cell:
    """Another method on the same data."""
    return Cell(cell.shared, composed(method, cell.task.config))


def test_a_constant_epsilon_of_one_half_teaches_nothing(run: tuple[Cell, planted.World, int], tmp_path: Path) -> None:
    """At ε = ½ both orders are as likely: the margin stays where it is, while ε = 0 moved it."""
    cell, world, sign = run
    half = other(cell, replace(METHOD, name="half", smoothing=Constant(value=0.5)))
    moved = sign * margins((half, world, sign), [0, 1, 2], [(ONE, TWO)])
    assert np.abs(moved).max() < 0.1 * sign * margins(run, [0, 1, 2], [(ONE, TWO)]).mean()
