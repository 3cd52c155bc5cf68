"""Several rounds: the model of a round is the reference of the next one, the one that is mined, and where it starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import planted
import pytest
import torch
from planted import get

from rosepo_bench.losses.compiled import DPO
from rosepo_bench.preference.samplers.self_hard import SelfHard
from rosepo_bench.runs.cells import Cell
from rosepo_bench.runs.methods import Preference

METHOD = Preference(name="play", loss=DPO(), sampler=SelfHard(), rounds=2)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cell, planted.World]:
    folder, world = tmp_path_factory.mktemp("rounds"), planted.world()
    settings = ("preference.lr=1e-2", "preference.pairs=24")
    return planted.cell(folder / "out", world.write(folder), *settings, method=METHOD), world


def test_the_second_round_stands_on_the_first(played: tuple[Cell, planted.World]) -> None:
    cell, world = played
    (one, first), (two, second) = cell.rounds
    assert (one.pairing.base.key, two.pairing.base.key) == (cell.sft.key, first.key)
    assert cell.trained is not None
    assert cell.trained.key == second.key != first.key
    examples, titles = two.pairing.examples["train"], two.pairing.titles("train")
    prompts = planted.prompts_of(cell, world, examples)
    told = get(cell, two.pairing.reference())["train"]
    before, after = (
        planted.sums(planted.network(cell, stage), cell, world, prompts, titles) for stage in (cell.sft, first)
    )
    np.testing.assert_allclose(told, after, atol=2e-4)
    assert np.abs(after - before).max() > 0.05, "a first round that moved nothing proves nothing"
    mined = get(cell, two.pairing.mining.stage)["train"]
    scores = planted.sums(planted.network(cell, first), cell, world, prompts, mined["scored"])
    np.testing.assert_allclose(mined["scores"], scores, atol=2e-4)


def test_the_second_round_starts_where_the_first_ended(tmp_path: Path) -> None:
    """With a learning rate of next to nothing in the second round its weights are the first one's."""
    world = planted.world()
    prefix = world.write(tmp_path)
    cell = planted.cell(tmp_path / "out", prefix, "preference.lr=1e-2", "preference.pairs=24", method=METHOD)
    first = cell.rounds[0][1]
    moved = planted.network(cell, first)
    still = planted.network(cell, cell.trained)
    sft = planted.network(cell, cell.sft)
    far = max(float((a - b).detach().abs().max()) for a, b in zip(still.parameters(), sft.parameters(), strict=True))
    near = max(float((a - b).detach().abs().max()) for a, b in zip(still.parameters(), moved.parameters(), strict=True))
    assert 0 < near < far
    # Two rounds of AdamW from one start would lie as far from SFT as one does.
    alone = max(float((a - b).detach().abs().max()) for a, b in zip(moved.parameters(), sft.parameters(), strict=True))
    assert far > 1.2 * alone
    assert not any(
        torch.equal(a, b) for a, b in zip(still.parameters(), moved.parameters(), strict=True) if a.dim() > 1
    )
