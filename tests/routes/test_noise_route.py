"""Where noise goes: training, validation and later histories hold it, test targets and candidates do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import planted
from planted import get

from rosepo_bench.base.records import read_records
from rosepo_bench.data.types import Prompts
from rosepo_bench.report.tables import render
from rosepo_bench.runs import record

NOISE = "datasets.planted.noise=0.4"


def same(one: Prompts, two: Prompts) -> bool:
    return all(np.array_equal(value, vars(two)[name]) for name, value in vars(one).items())


def test_only_the_test_part_is_clean(tmp_path: Path) -> None:
    world = planted.world()
    prefix = world.write(tmp_path)
    clean, noisy = (planted.cell(tmp_path / "out", prefix, *more).task for more in ((), (NOISE,)))
    noise = noisy.data.sequences
    assert sum((one != two).sum() for one, two in zip(noise, clean.data.sequences, strict=True)) > 20
    # what is learned from
    assert [list(own) for own in noisy.view.sequences] == [list(own[:-2]) for own in noise]
    validation = noisy.examples("validation")
    assert validation.target.tolist() == [noise[user][-2] for user in validation.user]
    assert (validation.target != clean.examples("validation").target).any()
    # what is tested
    assert same(noisy.test, clean.test)
    assert noisy.test.target.tolist() == [own[-1] for own in world.histories]
    histories = noisy.queries(noisy.test).histories
    assert [list(own) for own in histories] == [list(noise[user][:-1]) for user in noisy.test.user]


def test_the_language_model_and_the_pairs_read_noise(tmp_path: Path) -> None:
    """Chosen items of pairs are noisy ones, and SFT's weights differ."""
    prefix = planted.world().write(tmp_path)
    clean, noisy = (planted.cell(tmp_path / "out", prefix, *more) for more in ((), (NOISE,)))
    chosen = noisy.pairing.examples["train"]
    assert chosen.target.tolist() == [
        noisy.task.data.sequences[user][step] for user, step in zip(chosen.user, chosen.step, strict=True)
    ]
    assert (chosen.target != clean.pairing.examples["train"].target).any()
    one, two = (get(cell, cell.sft).weights.read_bytes() for cell in (clean, noisy))
    assert one != two


def test_noise_draws_with_the_runs_seed_and_tests_on_the_same(tmp_path: Path) -> None:
    prefix = planted.world().write(tmp_path)
    one, two = (planted.cell(tmp_path / "out", prefix, NOISE, f"first_seed={seed}").task for seed in (0, 1))
    assert any((own != other).any() for own, other in zip(one.data.sequences, two.data.sequences, strict=True))
    assert same(one.test, two.test)


def test_records_tell_and_the_report_keeps_levels_apart(tmp_path: Path) -> None:
    prefix, out = planted.world().write(tmp_path), tmp_path / "out"
    for more in ((), (NOISE,), (NOISE, "first_seed=1")):
        record.run(planted.cell(out, prefix, *more))
    records, problems = read_records(out)
    assert problems == []
    told = {(one.seed, (one["data"].get("noise") or {}).get("rate")): one["data"] for one in records}
    assert told.keys() == {(0, None), (0, 0.4), (1, 0.4)}
    assert len({data["digest"] for data in told.values()}) == 1
    assert told[0, 0.4]["noise"]["law"] == "uniform"
    assert told[0, 0.4]["noise"]["replaced"] > 20
    text = " ".join(render(records).split())
    assert "## planted, noise none " in text
    assert "## planted, noise uniform 0.4 " in text
    assert text.count("**Noise**: 40.0 % of the training and validation items were replaced by others, drawn") == 1
    assert "seeds 0, 1" in text
