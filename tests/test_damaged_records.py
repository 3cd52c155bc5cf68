"""Records, predictions and notes of failures that are not what was written: named, made again, and never followed to
another cell's."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_records import SUM, predictions, record, written

from rosepo_bench.base import failures, records
from rosepo_bench.base.errors import UserError

SHARE = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3}


def preference(**changes: Any) -> dict[str, Any]:
    told = {"pairs_seen": 3, "sampler": "s", "loss": "l", "beta": 1.0, "epsilon": None, "validation_epsilon": None}
    shares = {"margin_accuracy": {"before": SHARE, "after": SHARE}, "changed_top": {"share": 0.5, "n": 3}}
    return {"preference": {**told, **shares, **changes}, "oracle": None}


def test_the_least_that_preference_training_says_is_read(tmp_path: Path) -> None:
    """The records below are wrong in nothing else."""
    assert records.read_record(written(tmp_path, diagnostics=preference()))


def share(**changes: Any) -> dict[str, Any]:
    return {"diagnostics": preference(margin_accuracy={"before": None, "after": {**SHARE, **changes}})}


def evaluation(**changes: Any) -> dict[str, Any]:
    return {"evaluations": {SUM: {"facts": {}, "metrics": {}, **changes}}}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"training": {"planned_steps": "x"}}, "training.planned_steps = 'x'"),
        ({"training": {"steps": [1]}}, "training.steps = "),
        ({"training": {"best_step": 10**400}}, "training.best_step is not a finite number of 64 bits"),
        ({"settings": {"a": [2**63]}}, "settings.a.0 is not a finite number of 64 bits"),
        (share(value=-0.1), "margin_accuracy.after.value = '-0.1'"),
        (share(value=1e308), "margin_accuracy.after.value = "),
        (share(n=0), "margin_accuracy.after.n = '0'"),
        ({"diagnostics": preference(margin=None)}, "diagnostics.preference.margin = 'None'"),
        ({"diagnostics": preference(margin={"after": {"a": 1}})}, "margin.after.value: Field required"),
        (evaluation(facts={"size": "20"}), "facts.size = '20'"),
        (evaluation(facts=[]), "facts = "),
        (evaluation(metrics={"hr@1": 0.5}), "metrics.hr@1 = '0.5'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_number_that_no_table_can_show_is_refused(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=problem):
        written(tmp_path, **changes)


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"users": np.array([1, 2, 1])}, "users names a user twice"),
        ({"top": np.ones(3)}, "top has dtype float64, want whole numbers"),
        ({"top": np.ones((3, 2), int)}, r"top has shape \(3, 2\), want one value per user"),
        ({"scores": np.array([[1.0, np.nan]] * 3)}, "scores holds NaN"),
        ({"scores": np.ones((3, 2)), "candidates": np.ones((3, 4), int)}, r"candidates has shape \(3, 4\), want that"),
    ],
)
def test_predictions_that_no_metric_can_read_are_refused(
    arrays: dict[str, np.ndarray], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=problem):
        records.write_record(tmp_path, record(), predictions(**arrays))


# --- another cell's ---------------------------------------------------------------------------------------------------


def test_the_record_of_another_cell_is_not_taken_for_ones_own(tmp_path: Path, said: list[str]) -> None:
    """Copied as a whole it is as it was written; only its place is wrong."""
    other, own = written(tmp_path, method="dpo"), written(tmp_path)
    shutil.rmtree(own.parent)
    shutil.copytree(other.parent, own.parent)
    with pytest.raises(UserError, match=r"is the record of another cell: it belongs into records/movielens/dpo/seed0-"):
        records.read_record(own)
    assert not records.usable(own.parent)
    assert "sft/seed0-aaaaaaaaaaaa is made again" in said[0]
    found, problems = records.read_records(tmp_path)
    assert ([one.method for one in found], len(problems)) == (["dpo"], 1)


def test_a_record_is_not_written_to_where_a_link_leads(tmp_path: Path) -> None:
    other, own = written(tmp_path, method="dpo"), written(tmp_path)
    shutil.rmtree(own.parent)
    own.parent.symlink_to(other.parent)
    assert not records.usable(own.parent)
    before = other.read_bytes()
    written(tmp_path)
    assert records.usable(own.parent)
    assert other.read_bytes() == before
    assert records.usable(other.parent)


def test_a_folder_that_leads_nowhere_is_said(tmp_path: Path, said: list[str]) -> None:
    path = written(tmp_path)
    shutil.rmtree(path.parent)
    path.parent.symlink_to("nowhere")
    assert not records.usable(path.parent)
    assert len(said) == 1
    written(tmp_path)
    assert records.usable(path.parent)


# --- no file ----------------------------------------------------------------------------------------------------------


def folder(path: Path) -> None:
    (path / "deep").mkdir(parents=True)


def link(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [folder, os.mkfifo, link])
@pytest.mark.parametrize("name", ["record.json", f"{SUM}.npz"])
def test_what_is_no_file_is_said_and_made_again(
    name: str, make: Callable[[Path], None], tmp_path: Path, said: list[str]
) -> None:
    path = written(tmp_path)
    place = path.with_name(name)
    place.unlink()
    make(place)
    assert not records.usable(path.parent)
    assert f"{place}: a " in said[0]
    assert "stands where a file is needed" in said[0]
    (problem,) = records.read_records(tmp_path)[1]
    assert str(place) in problem
    written(tmp_path)
    assert records.usable(path.parent)


@pytest.mark.parametrize("text", [b'{"schema": ' + b"[" * 100_000, b'\xef\xbb\xbf{"schema": 2}', b'{"schema": NaN}'])
def test_json_that_we_do_not_write_is_a_problem_like_others(text: bytes, tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(text)
    assert not records.usable(path.parent)
    assert "record.json: not valid JSON" in records.read_records(tmp_path)[1][0]


def test_undecodable_bytes_in_a_setting_are_part_of_the_hash(tmp_path: Path) -> None:
    text = os.fsdecode(b"caf\xe9")
    path = written(tmp_path, settings={"path": text})
    assert records.read_record(path)["settings"] == {"path": text}
    path.write_text(path.read_text().replace(r"\udce9", r"\udcea"))
    with pytest.raises(UserError, match="has changed since it was written"):
        records.read_record(path)


@pytest.mark.parametrize("place", ["records", "records/movielens", "records/movielens/sft"])
def test_a_file_in_the_way_ends_a_run_before_its_work(place: str, tmp_path: Path) -> None:
    path = written(tmp_path)
    shutil.rmtree(tmp_path / place)
    (tmp_path / place).write_text("")
    with pytest.raises(UserError, match=f"/{place}: a file stands where a folder is needed"):
        records.usable(path.parent)
    if place == "records":
        with pytest.raises(UserError, match="/records: a file stands where a folder is needed"):
            records.read_records(tmp_path)


def test_strange_files_among_folders_are_passed_over(tmp_path: Path) -> None:
    path = written(tmp_path)
    for inside in (tmp_path / "records", path.parents[1], path.parent, path.parents[2]):
        (inside / ".DS_Store").write_text("")
    (path.parents[1] / "seed7-b").mkdir()  # its writer was killed before it wrote the record
    found, problems = records.read_records(tmp_path)
    assert ([one.method for one in found], problems) == (["sft"], [])


# --- notes of failures ------------------------------------------------------------------------------------------------


def note(out: Path) -> Path:
    return failures.write_failure(out, failures.Failure("steam", "dpo", 2, "killed", "k"))


def test_the_note_of_another_cell_is_refused(tmp_path: Path) -> None:
    path = note(tmp_path)
    path.rename(path.with_name("steam-kto-seed2.json"))
    with pytest.raises(UserError, match=r"steam-kto-seed2\.json: the note of another cell; delete it"):
        failures.read_failures(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, "\ufeff{}", "null", '{"seed": 1e999}'])
def test_a_torn_note_is_named(text: str, tmp_path: Path) -> None:
    path = note(tmp_path)
    path.write_text(text)
    with pytest.raises(UserError, match=r"steam-dpo-seed2\.json: not .*; delete it"):
        failures.read_failures(tmp_path)
    note(tmp_path)
    assert len(failures.read_failures(tmp_path)) == 1


@pytest.mark.parametrize("make", [folder, os.mkfifo, link])
def test_what_is_no_note_gives_way_to_one(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = note(tmp_path)
    for after in (lambda: note(tmp_path), lambda: failures.forget_failure(tmp_path, "steam", "dpo", 2)):
        path.unlink()
        make(path)
        with pytest.raises(UserError, match=r"seed2\.json: a .* stands where a file is needed; remove it"):
            failures.read_failures(tmp_path)
        after()
    assert failures.read_failures(tmp_path) == []
    assert json.loads(note(tmp_path).read_text())["reason"] == "killed"
