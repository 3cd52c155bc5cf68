"""A setting that can change a stage's content changes its key, and the stages that it cannot reach keep theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import planted
import pytest

from rosepo_bench.pipeline import stages
from rosepo_bench.runs.cells import Cell

DATA = {"data", "tokenizer", "validation", "test"}
SFT = {"sft", "scores.sft"}
ORACLE = {"sasrec", "oracle", "judged", "probe", "epsilon"}
MINED = {"mining", "rejected", "reference", "judged", "epsilon"}  # what a sampler's pairs become
LAST = {"trained", "after", "scored"}
ALL = DATA | SFT | ORACLE | MINED | LAST
REJECTED = MINED - {"mining"} | LAST
MODEL = SFT | MINED | LAST
PROMPT = MODEL | {"probe"}  # oracles are asked after the same windows

REACHED: dict[str, set[str]] = {
    "datasets.planted.core=2": ALL,
    "datasets.planted.split=temporal": ALL,
    "datasets.planted.ties=item": ALL,
    "datasets.planted.ties=shuffled": ALL,
    "datasets.planted.noise=0.3": ALL - {"test"},  # the test part is drawn from clean data
    "datasets.planted.noise_law=popularity": set(),  # without noise
    "datasets.planted.seed=1": {"validation", "test", "probe", "scores.sft"} | MINED | LAST,
    "datasets.planted.candidates=7": {"validation", "test", "probe", "scores.sft"} | MINED | LAST,
    "datasets.planted.users=9": {"test", "scores.sft", "scored"},
    "first_seed=1": ALL - DATA,
    "model.vocabulary=340": {"tokenizer"} | MODEL,
    "model.hidden=32": MODEL,
    "model.layers=2": MODEL,
    "model.attention=dense": MODEL,
    "model.impl=reference": MODEL,
    "model.training=lora": MODEL,
    "prompt.history=3": PROMPT,
    "prompt.anchor=1": PROMPT,
    "prompt.candidates=true": MODEL,
    "sft.epochs=2.0": MODEL,
    "sft.lr=0.002": MODEL,
    "sft.batch=8": MODEL,
    "sft.warmup=0.3": MODEL,
    "sft.weight_decay=0.1": MODEL,
    "batch_tokens=1024": MODEL,
    "oracles.sasrec.epochs=1": ORACLE | LAST,
    "oracles.sasrec.dropout=0.1": ORACLE | LAST,
    "oracles.sasrec.length=5": ORACLE | LAST,
    "smoothings.predicted.folds=3": ORACLE - {"sasrec"} | LAST,
    "smoothings.predicted.correct_for_sampler=false": {"judged", "epsilon"} | LAST,
    "validation.probes=5": {"probe"},
    "preference.pairs=40": MINED | LAST,
    "preference.steps_per_user=2": MINED | LAST,
    "preference.validation_pairs=10": MINED | LAST,
    "samplers.self_hard.items=catalogue": MINED | LAST,
    "samplers.semantic.anchor=target": REJECTED,
    "samplers.semantic.temperature=0.1": REJECTED,
    "samplers.popularity.exponent=0.5": REJECTED,
    "method.*.loss.beta=0.5": LAST,
    "preference.lr=1e-4": LAST,
    "preference.batch=4": LAST,
    "preference.epochs=2": LAST,
    "preference.warmup=0.3": LAST,
    "preference.weight_decay=0.1": LAST,
    "preference.trees=prompt": LAST,
    "smoothings.predicted.cap=0.3": {"epsilon"} | LAST,
    "method.rosepo.smoothing.cap=0.3": {"epsilon"} | LAST,
    "method.rosepo.loss.beta=0.5": LAST,
    "losses.rosepo.beta=0.5": LAST,
    "losses.dpo.beta=0.5": set(),
    "method.rosepo.rejected=2": REJECTED,
    "method.rosepo.training.lr=1e-4": LAST,
    "samplers.semantic.history=3": REJECTED,
    "samplers.uniform={}": set(),
    "preference.evaluations=2": LAST,
    "sft.evaluations=2": MODEL,
    "oracles.sasrec.evaluations=2": ORACLE | LAST,
    "validation.metric=hr@1": set(),  # nothing is watched
    "validation.users=5": set(),
    "protocols=['candidates-mean']": {"scores.sft", "scored"} | MINED | LAST,
    "scoring.batch_tokens=2048": {"scores.sft", "scored"} | MINED | LAST,
    "checkpoint_seconds=1.0": set(),
    "threads=2": set(),
    "seeds=1": set(),
}
# Methods that are not smoothed by an oracle, nor mine, are reached by less.
OF_DPO: dict[str, set[str]] = {
    "oracles.sasrec.epochs=1": set(),
    "smoothings.predicted.correct_for_sampler=false": set(),
    "samplers.self_hard.items=catalogue": set(),
    "samplers.popularity.exponent=0.5": set(),
    "protocols=['candidates-mean']": {"scores.sft", "scored"},
    "scoring.batch_tokens=2048": {"scores.sft", "scored", "reference"} | LAST,
    "preference.pairs=40": {"rejected", "reference", "epsilon"} | LAST,
    "first_seed=1": ALL - DATA - {"mining", "judged", "oracle", "probe", "sasrec"},
    "prompt.candidates=true": MODEL - {"mining", "judged", "rejected", "epsilon"},
}


def keys(out: Path, world: planted.World, *settings: str, method: str = "rosepo") -> dict[str, str]:
    """The key of every stage of a cell, by a short name."""
    cell = planted.cell(out, world.write(out / "files"), *settings, method=method)
    task, pairing = cell.task, cell.pairing
    (scored,) = cell.answered.values()
    assert cell.trained is not None
    found = {
        "data": task.data_stage,
        "tokenizer": cell.language.encoder_stage,
        "validation": task.examples_stage("validation"),
        "test": task.examples_stage("test"),
        "sft": cell.sft,
        "scores.sft": cell.sft_answered,
        "rejected": pairing.rejected,
        "reference": cell.reference,
        "epsilon": cell.smoothed.stage,
        "trained": cell.trained,
        "after": cell.after,
        "scored": scored,
    }
    if (judging := cell.smoothed.judging) and cell.probe:
        found |= {"oracle": judging.crossfit, "sasrec": judging.everybody, "judged": judging.stage}
        found |= {"probe": cell.probe.stage}
    if pairing.sampler.pool:
        found["mining"] = pairing.mining.stage
    return {name: stage.key for name, stage in found.items()} | {"cell": cell.key}


def moved(one: dict[str, str], two: dict[str, str]) -> set[str]:
    return {name for name in one if one[name] != two[name]}


def test_the_table_names_every_setting_that_can_act(tmp_path: Path) -> None:
    """All keys of one cell differ from each other, and are the same again."""
    found = keys(tmp_path, planted.world())
    assert len(set(found.values())) == len(found)
    assert keys(tmp_path, planted.world()) == found
    assert found.keys() == ALL | {"cell"}


@pytest.mark.parametrize("setting", REACHED)
def test_a_setting_reaches_the_stages_that_depend_on_it(setting: str, tmp_path: Path) -> None:
    found = moved(keys(tmp_path, planted.world()), keys(tmp_path, planted.world(), setting))
    wanted = REACHED[setting]
    assert found == wanted | ({"cell"} if wanted else set())


@pytest.mark.parametrize("setting", OF_DPO)
def test_a_method_without_oracle_is_reached_by_less(setting: str, tmp_path: Path) -> None:
    both = [keys(tmp_path, planted.world(), *more, method="dpo") for more in ((), (setting,))]
    assert moved(*both) - {"cell"} == OF_DPO[setting]


@pytest.mark.parametrize("setting", ["datasets.planted.noise_law=popularity", "first_seed=1"])
def test_law_and_seed_of_the_noise_reach_all_but_the_test_part(setting: str, tmp_path: Path) -> None:
    noise = "datasets.planted.noise=0.3"
    both = [keys(tmp_path, planted.world(), noise, *more) for more in ((), (setting,))]
    assert moved(*both) == ALL - {"test"} | {"cell"}


@pytest.mark.parametrize("setting", ["prompt.history=3", "datasets.planted.candidates=7", "first_seed=1"])
def test_pairs_that_are_not_mined_depend_on_it_all_the_same(setting: str, tmp_path: Path) -> None:
    """Semantic rejected items are near to as many items as a prompt has."""
    both = [keys(tmp_path, planted.world(), *more, method="rosepo-semantic") for more in ((), (setting,))]
    assert moved(*both) >= {"rejected", "reference", "trained"}


def test_the_length_of_lists_reaches_sft_where_prompts_hold_them(tmp_path: Path) -> None:
    listed, longer = "prompt.candidates=true", "datasets.planted.candidates=7"
    assert "sft" in moved(*(keys(tmp_path, planted.world(), listed, *more) for more in ((), (longer,))))


@pytest.mark.parametrize("part", ["test", "validation"])
def test_another_content_of_the_files_is_another_data_set(part: str, tmp_path: Path) -> None:
    world = planted.world()
    other = keys(tmp_path / "b", world.changed("leave_one_out", part))
    assert moved(keys(tmp_path / "a", world), other) == ALL | {"cell"}


def test_where_the_files_lie_is_no_part_of_a_key(tmp_path: Path) -> None:
    assert keys(tmp_path / "a", planted.world()) == keys(tmp_path / "b", planted.world())


def test_parents_stand_in_the_key_and_are_computed_first(tmp_path: Path) -> None:
    order: list[str] = []

    def stage(name: str, inputs: int, *parents: stages.Stage[str]) -> stages.Stage[str]:
        def compute(folder: Path, work: Path) -> None:
            order.append(name)

        return stages.Stage(name, inputs, parents, compute, lambda folder: name)

    one, two = stage("parent", 1), stage("parent", 2)
    assert stage("child", 0, one).key != stage("child", 0, two).key != stage("child", 0).key
    assert stage("child", 0, one).key == stage("child", 0, stage("parent", 1)).key
    stages.Stages(tmp_path).get(stage("child", 0, one))
    assert order == ["parent", "child"]


@pytest.mark.parametrize("listed", ["true", "false"])
def test_what_a_stage_reads_is_among_its_ancestors(
    listed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every stage whose result is asked for while another is computed stands in the key of that one, by itself or
    through its parents."""
    cell = planted.cell(
        tmp_path / "out", planted.world().write(tmp_path), f"prompt.candidates={listed}", method="rosepo"
    )
    running: list[stages.Stage[Any]] = []
    read: set[tuple[str, str]] = set()
    lacking: set[tuple[str, str]] = set()
    get, run = stages.Stages.get, stages.Stages._compute

    def ancestors(stage: stages.Stage[Any]) -> set[str]:
        return {stage.key}.union(*(ancestors(parent) for parent in stage.parents))

    def watched(self: stages.Stages, stage: stages.Stage[Any]) -> Any:
        if running and stage.key not in {parent.key for parent in running[-1].parents}:
            read.add((running[-1].name, stage.name))
            if stage.key not in ancestors(running[-1]):
                lacking.add((running[-1].name, stage.name))
        return get(self, stage)

    def computing(self: stages.Stages, stage: stages.Stage[Any]) -> None:
        running.append(stage)
        try:
            run(self, stage)
        finally:
            running.pop()

    monkeypatch.setattr(stages.Stages, "get", watched)
    monkeypatch.setattr(stages.Stages, "_compute", computing)
    for stage in cell.stages:
        cell.task.stages.get(stage)
    assert ("planted.rosepo", "planted.rejected.mixed") in read
    assert lacking == set()


def test_methods_of_one_sampler_share_their_pairs(tmp_path: Path) -> None:
    """And no more than that: trained weights carry the method's name."""
    cells: list[Cell] = [
        planted.cell(tmp_path, planted.world().write(tmp_path), method=name) for name in ("dpo", "cdpo", "rosepo")
    ]
    dpo, cdpo, rosepo = cells
    assert dpo.reference.key == cdpo.reference.key != rosepo.reference.key
    assert len({cell.trained.key for cell in cells if cell.trained}) == 3
