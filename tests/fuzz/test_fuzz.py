"""A few seconds of ``make fuzz``: no crash, no wrong number, no traceback; and that it notices what it is there for."""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "engine"))

import inputs
import operators
import raw_files
import shaking

from rosepo_bench.base import records
from rosepo_bench.data.readers import movielens
from rosepo_bench.engine import ops


def test_operators_give_the_reference_or_a_sentence() -> None:
    calls, problems = shaking.shake_all(0, 12)
    assert problems == []
    assert calls == 12 * 16 * len(operators.SHAKES)


def test_mutated_files_end_in_a_sentence(tmp_path: Path) -> None:
    fed, problems = inputs.feed_all(0, 40, tmp_path)
    assert problems == []
    assert set(fed) == {"raw", "profile", "checksums"}


@pytest.mark.parametrize("one", raw_files.SETS, ids=lambda one: one.name)
def test_files_that_are_not_mutated_are_read(tmp_path: Path, one: raw_files.RawSet) -> None:
    with inputs.small_releases():
        ended = inputs.call("data", "describe", one.name, *inputs._world(tmp_path, one))
    assert (ended.status, ended.problem()) == (0, ""), ended


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> inputs.Finished:
    return inputs.finished(tmp_path_factory.mktemp("whole"), methods="popularity")


def test_a_damaged_folder_of_results_is_named(whole: inputs.Finished, tmp_path: Path) -> None:
    feed = inputs.results(whole)
    for seed in range(10):
        (tmp_path / str(seed)).mkdir()
        assert feed(tmp_path / str(seed), random.Random(seed)) == ""


def test_the_fuzz_notices_a_wrong_number(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ops.preference_loss
    monkeypatch.setattr(ops, "preference_loss", lambda *a, impl, **b: right(*a, impl=impl, **b) * (1 + (impl == "cpp")))
    with pytest.raises(operators.FoundError, match="result 0 is off by"):
        operators.shake("preference_loss", 1)


def test_the_fuzz_notices_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("user")

    monkeypatch.setattr(movielens, "_in_time", broken)
    one = raw_files.SETS[0]
    with inputs.small_releases():
        ended = inputs.call("data", "describe", one.name, *inputs._world(tmp_path, one))
    assert ended.problem().startswith("status 1: ")
    assert "KeyError: 'user'" in ended.problem()


def test_the_fuzz_notices_a_record_that_is_believed(
    whole: inputs.Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole.folder, out)
    (path,) = out.glob("records/*/*/*/record.json")
    record = json.loads(path.read_text())
    record["throughput"]["scoring_users_per_s"] *= 2
    path.write_text(json.dumps(record))
    assert inputs._ends(whole, out, "report", path) == ""
    monkeypatch.setattr(records, "digest_of", lambda record: record["sha256"])
    assert inputs._ends(whole, out, "report", path) == "other tables, and it is not named"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
