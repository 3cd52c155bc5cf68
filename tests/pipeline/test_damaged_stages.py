"""Stages whose folders are not what was written: said, computed again, and never followed to another's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rosepo_bench.base import manifest, store
from rosepo_bench.base.errors import UserError
from rosepo_bench.pipeline.stages import Stage, Stages


def stage(runs: list[int], inputs: Any = 0) -> Stage[Any]:
    """A stage that keeps an array and a number, and goes on from a checkpoint if it finds one."""

    def compute(folder: Path, work: Path) -> None:
        runs.append(0)
        store.write_npz(folder / "a.npz", a=np.arange(3))
        store.write_json(folder / "b.json", store.read_json(work / "c.json") if (work / "c.json").exists() else 7)
        store.write_json(work / "c.json", 9)

    def read(folder: Path) -> Any:
        return store.read_npz(folder / "a.npz")["a"].tolist(), store.read_json(folder / "b.json")

    return Stage("a.sft", inputs, (), compute, read)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def nested(path: Path) -> None:
    path.write_bytes(b"[" * 100_000)


def absent(path: Path) -> None:
    store.remove(path)


def folder(path: Path) -> None:
    store.remove(path)
    (path / "deep").mkdir(parents=True)


def pipe(path: Path) -> None:
    store.remove(path)
    os.mkfifo(path)


def link(path: Path) -> None:
    store.remove(path)
    path.symlink_to("nowhere")


@pytest.mark.parametrize("name", ["a.npz", "b.json", "manifest.json"])
@pytest.mark.parametrize("damage", [cut, flip, empty, nested, absent, folder, pipe, link])
def test_a_damaged_file_is_said_and_computed_again(
    damage: Callable[[Path], None], name: str, tmp_path: Path, said: list[str]
) -> None:
    runs: list[int] = []
    made = stage(runs)
    assert Stages(tmp_path).get(made) == ([0, 1, 2], 7)
    damage(Stages(tmp_path).folder(made) / name)
    assert Stages(tmp_path).stored(made) is None
    said.clear()
    assert Stages(tmp_path).get(made) == ([0, 1, 2], 7)
    assert len(runs) == 2
    assert f"the stored result is broken and is computed again: {'its ' * (name == manifest.NAME)}{name}" in said[
        0
    ] or (damage is absent and name == manifest.NAME and "it has no manifest.json" in said[0])
    assert manifest.verify(Stages(tmp_path).folder(made), made.key)


@pytest.mark.parametrize("damage", [empty, pipe, link])
def test_what_is_no_folder_is_replaced(damage: Callable[[Path], None], tmp_path: Path, said: list[str]) -> None:
    runs: list[int] = []
    made, stages = stage(runs), Stages(tmp_path)
    stages.get(made)
    shutil.rmtree(stages.folder(made))
    damage(stages.folder(made))
    assert Stages(tmp_path).get(made) == ([0, 1, 2], 7)
    assert len(runs) == 2
    assert "computed again" in said[1]


def test_anothers_folder_is_neither_read_nor_written(tmp_path: Path) -> None:
    """A link to another stage's folder is broken, and made again without a change there."""
    runs: list[int] = []
    one, two = stage(runs, 1), stage(runs, 2)
    stages = Stages(tmp_path)
    stages.get(one)
    stages.get(two)
    shutil.rmtree(stages.folder(two))
    stages.folder(two).symlink_to(stages.folder(one))
    assert Stages(tmp_path).stored(two) is None
    Stages(tmp_path).get(two)
    assert not stages.folder(two).is_symlink()
    assert Stages(tmp_path).stored(one)
    assert len(runs) == 3


def test_a_checkpoint_is_not_written_to_where_a_link_leads(tmp_path: Path) -> None:
    runs: list[int] = []
    made, stages, target = stage(runs), Stages(tmp_path), tmp_path / "target"
    target.mkdir()
    (target / "c.json").write_text("8")
    stages.work(made).parent.mkdir()
    stages.work(made).symlink_to(target)
    assert stages.get(made) == ([0, 1, 2], 7), "nor read from there"
    assert (target / "c.json").read_text() == "8"
    assert not os.path.lexists(stages.work(made))


def test_a_file_in_the_place_of_checkpoints_is_replaced(tmp_path: Path) -> None:
    made, stages = stage([]), Stages(tmp_path)
    store.write_text(stages.work(made), "")
    assert stages.get(made) == ([0, 1, 2], 7)
    shutil.rmtree(tmp_path)
    store.write_text(tmp_path / "work", "")
    with pytest.raises(UserError, match="/work: a file stands where a folder is needed"):
        Stages(tmp_path).get(made)


def test_what_a_link_leads_to_is_not_evicted_or_forgotten(tmp_path: Path) -> None:
    """A folder shared by another output folder belongs to that."""
    made, ours, theirs = stage([]), Stages(tmp_path / "ours"), Stages(tmp_path / "theirs")
    theirs.get(made)
    ours.folder(made).parent.mkdir(parents=True)
    ours.folder(made).symlink_to(theirs.folder(made))
    assert Stages(tmp_path / "ours").stored(made)
    ours.evict(0, keep=())
    assert ours.done(made)
    ours.forget(made)
    assert not os.path.lexists(ours.folder(made))
    assert Stages(tmp_path / "theirs").stored(made)
