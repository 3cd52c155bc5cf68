"""The rule of the first protocol, sum or mean, is one for all that ranks or chooses titles: mining, scores, records.
Losses and their references are sums under either."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import planted
import pytest
from planted import get

from rosepo_bench.losses.compiled import RosePO
from rosepo_bench.pipeline import mining
from rosepo_bench.preference.samplers.self_hard import SelfHard
from rosepo_bench.runs import record
from rosepo_bench.runs.cells import Cell
from rosepo_bench.runs.methods import Preference

RULES = ("sum", "mean")
Runs = dict[str, Cell]


@pytest.fixture(scope="module", params=["candidates", "catalogue"])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Runs, planted.World]:
    """Self-hard under both rules, over one and the same SFT model."""
    folder, world = tmp_path_factory.mktemp("rule"), planted.world()
    method = Preference(name="dpo", about="self-hard", loss=RosePO(), sampler=SelfHard())
    settings = (f"samplers.self_hard.items={request.param}", "preference.pairs=24", "sft.epochs=15.0", "sft.lr=0.01")
    prefix = world.write(folder)
    made = {
        rule: planted.cell(folder / "out", prefix, f"protocols=['candidates-{rule}']", *settings, method=method)
        for rule in RULES
    }
    assert made["sum"].sft.key == made["mean"].sft.key
    with pytest.MonkeyPatch.context() as patch:  # a catalogue in several chunks, of which most falls out of the top
        patch.setattr(mining, "CATALOGUE_CHUNK", 7)
        patch.setattr(mining, "CATALOGUE_TOP", 1)
        for cell in made.values():
            get(cell, cell.pairing.mining.stage)
    return made, world


def lengths(cell: Cell, world: planted.World) -> np.ndarray:
    """Tokens of each title, its end included."""
    return np.array([len(planted.response(cell, world, item)) for item in range(planted.ITEMS)])


def by_hand(cell: Cell, world: planted.World, stage: Any, examples: Any, items: Any, rule: str) -> np.ndarray:
    prompts = planted.prompts_of(cell, world, examples)
    sums = planted.sums(planted.network(cell, stage), cell, world, prompts, items)
    return sums / lengths(cell, world)[items] if rule == "mean" else sums


@pytest.mark.parametrize("part", ["train", "validation"])
def test_mining_scores_and_rejects_by_the_rule(part: str, runs: tuple[Runs, planted.World]) -> None:
    made, world = runs
    first: dict[str, list[int]] = {}
    for rule, cell in made.items():
        examples, pool = cell.pairing.examples[part], get(cell, cell.pairing.mining.stage)[part]
        scores = by_hand(cell, world, cell.sft, examples, pool["scored"], rule)
        np.testing.assert_allclose(pool["scores"], scores, atol=1e-4)
        items = pool["scored"]
        if cell.pairing.sampler.pool == "catalogue":
            assert items.shape[1] < planted.ITEMS
            items = np.broadcast_to(np.arange(planted.ITEMS), (len(items), planted.ITEMS))
            scores = by_hand(cell, world, cell.sft, examples, items, rule)
        closed = [world.histories[u][: s + 1] for u, s in zip(examples.user, examples.step, strict=True)]
        barred = np.array([np.isin(listed, own) for listed, own in zip(items, closed, strict=True)])
        best = np.where(barred, -np.inf, scores).argmax(axis=1)
        first[rule] = items[np.arange(len(best)), best].tolist()
        assert get(cell, cell.pairing.rejected)[part].items.tolist() == [[item] for item in first[rule]]
    assert sum(one != two for one, two in zip(*first.values(), strict=True)) >= 3


def test_the_rule_is_in_the_key_of_mining(runs: tuple[Runs, planted.World]) -> None:
    made, _ = runs
    assert made["sum"].pairing.mining.stage.key != made["mean"].pairing.mining.stage.key


@pytest.mark.parametrize("rule", RULES)
def test_references_are_sums_under_either_rule(rule: str, runs: tuple[Runs, planted.World]) -> None:
    cell, world = runs[0][rule], runs[1]
    for part in ("train", "validation"):
        prompts, titles = cell.pairing.prompts(part), cell.pairing.titles(part)
        wanted = by_hand(cell, world, cell.sft, prompts, titles, "sum")
        np.testing.assert_allclose(get(cell, cell.reference)[part], wanted, atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_records_rank_by_the_rule(rule: str, runs: tuple[Runs, planted.World]) -> None:
    cell, world = runs[0][rule], runs[1]
    test = cell.task.test
    record.run(cell)
    with np.load(cell.folder / f"candidates-{rule}.npz") as arrays:
        predictions = {name: arrays[name] for name in arrays.files}
    wanted = by_hand(cell, world, cell.trained, test, test.candidates, rule)
    np.testing.assert_allclose(predictions["scores"], wanted, atol=1e-4)
    of_target = np.take_along_axis(wanted, test.position[:, None], 1)
    assert predictions["rank"].tolist() == (1 + (wanted > of_target).sum(axis=1)).tolist()
    assert predictions["top"].tolist() == test.candidates[np.arange(len(test)), wanted.argmax(axis=1)].tolist()
    other = by_hand(cell, world, cell.trained, test, test.candidates, *(other for other in RULES if other != rule))
    assert (other.argmax(axis=1) != wanted.argmax(axis=1)).any()
    written = json.loads((cell.folder / "record.json").read_text())
    assert list(written["evaluations"]) == [f"candidates-{rule}"]
    told = written["evaluations"][f"candidates-{rule}"]
    assert told["facts"]["score"] == rule
    assert told["metrics"]["hr@1"]["value"] == (predictions["rank"] == 1).mean()
