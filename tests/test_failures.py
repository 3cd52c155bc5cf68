"""Notes of failed cells: one file a cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rosepo_bench.base import failures
from rosepo_bench.base.errors import UserError


def failure(method: str = "dpo", key: str = "k", reason: str = "killed", **settings: Any) -> failures.Failure:
    return failures.Failure("steam", method, 2, reason, key, settings, ["line 1", "line 2"])


def test_failures_are_files_of_their_own(tmp_path: Path) -> None:
    """One a cell; written again it says the last reason and the settings of then."""
    first = failures.write_failure(tmp_path, failure(beta=1.0))
    assert first == tmp_path / "failures" / "steam-dpo-seed2.json"
    failures.write_failure(tmp_path, failure("kto"))
    told = json.loads(first.read_text())
    assert (told["reason"], told["key"], told["traceback"]) == ("killed", "k", ["line 1", "line 2"])
    assert failures.write_failure(tmp_path, failure(key="other", reason="again", beta=2.0)) == first
    found = [(one.method, one.reason, one.key, one.settings) for one in failures.read_failures(tmp_path)]
    assert found == [("dpo", "again", "other", {"beta": 2.0}), ("kto", "killed", "k", {})]
    failures.forget_failure(tmp_path, "steam", "dpo", 2)
    failures.forget_failure(tmp_path, "steam", "dpo", 2)
    assert [one.method for one in failures.read_failures(tmp_path)] == ["kto"]
    assert failures.read_failures(tmp_path / "nothing") == []


def test_a_failure_that_another_process_removes_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = failures.write_failure(tmp_path, failure())
    read = failures.read_json

    def removed(given: Path) -> Any:
        given.unlink()
        return read(given)

    monkeypatch.setattr(failures, "read_json", removed)
    assert failures.read_failures(tmp_path) == []
    assert not path.exists()


def test_a_foreign_file_among_failures_is_named(tmp_path: Path) -> None:
    (tmp_path / "failures").mkdir()
    (tmp_path / "failures" / "a.json").write_text('{"dataset": 1}')
    with pytest.raises(UserError, match=r"a\.json: not a note of a failed cell; delete it"):
        failures.read_failures(tmp_path)
