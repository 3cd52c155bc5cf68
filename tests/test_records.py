"""Records: complete, checked, in order; broken ones are named and made again."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rosepo_bench.base import records
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.record_schema import SCHEMA, all_settings, digest_of, row_of

SUM = "candidates-sum"


def fail(*_: Any, **__: Any) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def record(**changes: Any) -> dict[str, Any]:
    """The least that a record may hold."""
    evaluation = {"facts": {"size": 20}, "metrics": {"hr@1": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3}}}
    hashes = {"digest": "d", "candidates_sha256": "c"}
    speed = dict.fromkeys(("training_tokens_per_s", "pairs_per_s", "scoring_users_per_s"))
    speed |= {"peak_memory_bytes": 1, "impl": "-", "attention": "-", "device": "cpu", "threads": 1, "seconds": {}}
    return {
        "key": "a" * 64,
        "row": "b" * 64,
        "dataset": "movielens",
        "method": "sft",
        "family": "language_model",
        "seed": 0,
        "profile": "demo",
        "settings": {},
        "config": {},
        "data": {"source": "s", "kind": "real", "split": "leave_one_out", "users": 3, **hashes},
        "training": None,
        "evaluations": {SUM: evaluation},
        "diagnostics": {"preference": None, "oracle": None},
        "throughput": speed,
        "environment": {},
        "stages": {},
        **changes,
    }


def predictions(n: int = 3, **arrays: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    return {SUM: {"users": np.arange(n), "rank": np.ones(n, np.int32), **arrays}}


def written(out: Path, n: int = 3, **changes: Any) -> Path:
    return records.write_record(out, record(**changes), predictions(n))


def test_records_come_back_in_order(tmp_path: Path) -> None:
    for dataset, method, seed in (("steam", "sft", 0), ("movielens", "sft", 10), ("movielens", "sft", 2)):
        written(tmp_path, seed + 1, dataset=dataset, method=method, seed=seed)
    written(tmp_path, method="dpo")
    found, problems = records.read_records(tmp_path)
    assert problems == []
    cells = [(one.dataset, one.method, one.seed) for one in found]
    assert cells == [
        ("movielens", "dpo", 0),
        ("movielens", "sft", 2),
        ("movielens", "sft", 10),
        ("steam", "sft", 0),
    ]
    assert len(found[1].predictions(SUM)["rank"]) == 3
    assert (found[0].key, found[0].row, found[0].protocols) == ("a" * 64, "b" * 64, [SUM])
    assert found[0].path.parent.name == "seed0-" + "a" * 12
    assert records.read_records(tmp_path / "nothing") == ([], [])


def test_what_is_written_is_the_schema(tmp_path: Path) -> None:
    told = json.loads(written(tmp_path).read_text())
    assert (told["schema"], told["sha256"]) == (SCHEMA, digest_of(told))
    assert told["created"].startswith("20")
    assert told["created"].endswith("+00:00")
    assert told["evaluations"][SUM]["predictions"]["file"] == f"{SUM}.npz"
    assert len(told["evaluations"][SUM]["predictions"]["sha256"]) == 64


def test_numpy_numbers_are_written_and_other_objects_refused(tmp_path: Path) -> None:
    path = written(tmp_path, settings={"a": np.float64(0.5), "b": np.arange(2), "c": (1, 2)})
    assert json.loads(path.read_text())["settings"] == {"a": 0.5, "b": [0, 1], "c": [1, 2]}
    assert records.read_record(path)["settings"] == {"a": 0.5, "b": [0, 1], "c": [1, 2]}
    with pytest.raises(TypeError, match="set cannot be written"):
        written(tmp_path, settings={"a": {1}})


def test_each_protocol_has_its_own_file(tmp_path: Path) -> None:
    """Ranks are as short as they can be, users are names or numbers."""
    made, mean = record(), "candidates-mean"
    made["evaluations"][mean] = made["evaluations"][SUM]
    users = np.array(["ann", "bob", "cy"])
    arrays = predictions(scores=np.zeros((3, 2))) | {mean: {"users": users, "rank": np.array([1, 2, 40_000])}}
    found = records.read_record(records.write_record(tmp_path, made, arrays))
    assert found.protocols == [SUM, mean]
    assert {name: array.dtype.str for name, array in found.predictions(SUM).items()} == {
        "users": "<i8",
        "rank": "<i2",
        "scores": "<f4",
    }
    assert found.predictions(mean)["rank"].dtype == np.int32
    assert found.predictions(mean)["rank"].tolist() == [1, 2, 40_000]
    assert found.predictions(mean)["users"].tolist() == ["ann", "bob", "cy"]


def test_a_record_implies_its_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed rewrite must not leave the old record beside the new predictions."""
    path = written(tmp_path)
    monkeypatch.setattr(records, "write_json", fail)
    with pytest.raises(OSError, match="Input/output"):
        written(tmp_path, 5)
    assert not path.exists()
    monkeypatch.undo()
    monkeypatch.setattr(records, "write_npz", fail)
    with pytest.raises(OSError, match="Input/output"):
        written(tmp_path, 5)
    assert records.read_records(tmp_path) == ([], [])


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"profile": 3}, "profile = '3': Input should be a valid string"),
    ({"seed": True}, "seed = 'True': Input should be a valid integer"),
    ({"row": "short"}, "row = 'short'"),
    ({"family": "magic"}, "family = 'magic'"),
    ({"data": {}}, "data.source: Field required"),
    ({"evaluations": {}}, "evaluations = "),
    (
        {"evaluations": {SUM: {"facts": {}, "metrics": {"hr@1": {}}}}},
        r"evaluations.candidates-sum.metrics.hr@1.value: ",
    ),
    ({"evaluations": {SUM: {"facts": {}, "metrics": {"m": {"value": np.nan}}}}}, "metrics.m.value is not a finite"),
    ({"diagnostics": {"preference": {}, "oracle": None}}, "diagnostics.preference.pairs_seen: Field required"),
    ({"training": {"curves": {"step": [1.0], "loss": [1.0, 2.0]}}}, "training = .*curves differ in length"),
    ({"training": {"validation": [[1, 0.2, 3]]}}, "validation is a list of"),
    ({"training": {"last_loss": np.inf}}, "training.last_loss is not a finite number"),
    ({"throughput": {"pairs_per_s": 1.0}}, "throughput.training_tokens_per_s: Field required"),
    ({"stages": {"sft": 3}}, "stages.sft = '3'"),
]


@pytest.mark.parametrize(("changes", "problem"), CHANGES, ids=[problem for _, problem in CHANGES])
def test_a_wrong_field_is_named_before_anything_is_written(changes: dict, problem: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        written(tmp_path, **changes)
    assert "record.json" in str(caught.value)
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize(("changes", "problem"), CHANGES[:5])
def test_a_wrong_field_is_named_on_reading(changes: dict, problem: str, tmp_path: Path) -> None:
    """Even where the hash is right."""
    path = written(tmp_path)
    told = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({**told, "sha256": digest_of(told)}))
    with pytest.raises(UserError, match=problem):
        records.read_record(path)


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"rank": np.ones(2, int)}, r"rank has shape \(2,\), want a row for each of 3 users"),
        ({"rank": np.ones(3)}, "rank has dtype float64, want whole numbers"),
        ({"rank": np.array([1, 0, 2])}, "rank holds a number below 1"),
        ({"rank": np.ones((3, 1), int)}, "want one value per user"),
        ({"tied": np.ones(3, int)}, "tied has dtype int64, want true or false"),
        ({"scores": np.ones(4)}, "scores has shape"),
        ({"users": np.ones(3)}, "users has dtype float64"),
        ({"users": np.ones((3, 1), int)}, "users has dtype int64 and shape"),
    ],
)
def test_wrong_arrays_are_named_before_anything_is_written(
    arrays: dict[str, np.ndarray], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        records.write_record(tmp_path, record(), predictions(**arrays))
    assert f"{SUM}.npz" in str(caught.value)
    assert not list(tmp_path.rglob("*"))


def test_arrays_need_users(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="users is missing"):
        records.write_record(tmp_path, record(), {SUM: {"rank": np.ones(3, int)}})
    records.write_record(tmp_path, record(), {SUM: {"users": np.arange(3)}})  # a protocol that ranks nothing


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f'{{"schema": {SCHEMA + 1}}}', f"schema {SCHEMA + 1}, but this program knows {SCHEMA}; use a newer"),
        ('{"schema": 2, "key": "k", "seed": 0}', "changed since it was written"),
        ('{"schema": 1, "key": "k", "seed": 0}', "not a whole record of schema 1"),
        ("[]", "not a record"),
        ("{}", "not a record"),
        ('{"schema": 1,', "not valid JSON"),
        ("\udcff", "not valid JSON"),
    ],
)
def test_unusable_record_is_named_and_the_others_read(tmp_path: Path, text: str, problem: str) -> None:
    written(tmp_path, method="dpo")
    path = written(tmp_path)
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=problem) as caught:
        records.read_record(path)
    assert str(path) in str(caught.value)
    found, problems = records.read_records(tmp_path)
    assert [one.method for one in found] == ["dpo"]
    assert problems == [str(caught.value)]


def test_a_changed_record_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(path.read_text().replace('"value": 0.5', '"value": 0.6'))
    with pytest.raises(UserError, match=r"changed since it was written: its sha256 differs; restore it, or"):
        records.read_record(path)


@pytest.mark.parametrize("given", [None, "short", 7])
def test_a_record_without_the_hash_of_its_predictions_is_refused(given: Any, tmp_path: Path) -> None:
    """Only records of schema 1 have none."""
    path = written(tmp_path)
    told = json.loads(path.read_text())
    told["evaluations"][SUM]["predictions"]["sha256"] = given
    path.write_text(json.dumps({**told, "sha256": digest_of(told)}))
    with pytest.raises(UserError, match=r"evaluations.candidates-sum.predictions.sha256"):
        records.read_record(path)


def lose(path: Path) -> None:
    path.with_name(f"{SUM}.npz").unlink()


def cut(path: Path) -> None:
    file = path.with_name(f"{SUM}.npz")
    file.write_bytes(file.read_bytes()[:-10])


def exchange(path: Path) -> None:
    np.savez(path.with_name(f"{SUM}.npz"), users=np.arange(3), rank=np.full(3, 2))


def edit(path: Path) -> None:
    path.write_text(path.read_text().replace("demo", "paper"))


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lose, "is missing"),
        (cut, "not the file that the record was written with"),
        (exchange, "not the file that the record was written with"),
        (edit, "changed since it was written"),
    ],
)
def test_what_is_broken_is_not_usable_and_said(harm: Any, why: str, tmp_path: Path, said: list[str]) -> None:
    path = written(tmp_path)
    assert records.usable(path.parent)
    assert said == []
    harm(path)
    assert not records.usable(path.parent, say=False)
    assert said == []
    assert not records.usable(path.parent)
    (line,) = said
    assert "movielens/sft/seed0-aaaaaaaaaaaa is made again: " in line
    assert why in line
    written(tmp_path)
    assert records.usable(path.parent), "made again"


def test_what_is_not_there_is_not_usable_and_nothing_is_said(tmp_path: Path, said: list[str]) -> None:
    assert not records.usable(tmp_path / "nothing")
    assert said == []


def test_another_files_name_cannot_be_given(tmp_path: Path) -> None:
    path = written(tmp_path)
    told = json.loads(path.read_text())
    told["evaluations"][SUM]["predictions"]["file"] = "../other.npz"
    path.write_text(json.dumps({**told, "sha256": digest_of(told)}))
    with pytest.raises(UserError, match=r"predictions.file = '../other.npz'"):
        records.read_record(path)


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "/etc"])
def test_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot name a folder"):
        records.record_folder(tmp_path, "movielens", name, 0, "k" * 12)
    evaluation = record()["evaluations"][SUM]
    with pytest.raises(UserError, match="cannot name a folder or file"):
        records.write_record(tmp_path, record(evaluations={name: evaluation}), {name: predictions()[SUM]})


def test_a_row_is_method_and_settings_without_the_data_set() -> None:
    config = {"dataset": {"candidates": 20}, "sft": {"lr": 1e-3}, "batch_tokens": 64}
    settings = {"loss.beta": 1.0, "sampler.shares": {"semantic": 0.5}}
    told = {"sft.lr": 1e-3, "batch_tokens": 64, "loss.beta": 1.0, "sampler.shares.semantic": 0.5}
    assert all_settings(settings, config) == told
    row = row_of("dpo", settings, config)
    assert row == row_of("dpo", told, {}) == row_of("dpo", settings, {**config, "dataset": {"candidates": 50}})
    others = [("kto", settings, config), ("dpo", {**settings, "loss.beta": 2.0}, config), ("dpo", settings, {})]
    assert len({row, *(row_of(*other) for other in others)}) == 4
