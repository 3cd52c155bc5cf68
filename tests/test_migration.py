"""Records of schema 1 are read as those of today."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from v1_record import KEY, whole, write_v1

from rosepo_bench.base import records
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.record_schema import SCHEMA


def test_records_of_schema_1_are_read(tmp_path: Path) -> None:
    path = write_v1(tmp_path)
    before = path.read_bytes()
    (found,), problems = records.read_records(tmp_path)
    assert problems == []
    assert (found["schema"], found.key, found.seed, found.created) == (SCHEMA, KEY, 3, "")
    assert found.protocols == ["candidates-sum"]
    told = found["evaluations"]["candidates-sum"]
    assert told["facts"] == {"name": "candidates", "size": 25, "score": "sum"}
    assert told["metrics"] == whole()["metrics"]
    assert found["diagnostics"] == {"preference": whole()["preference"], "oracle": whole()["oracle"]}
    assert found.predictions("candidates-sum")["rank"].tolist() == [1, 1, 7]
    assert found["training"] is None
    assert records.usable(path.parent)
    assert path.read_bytes() == before
    path.with_name("predictions.npz").unlink()
    assert not records.usable(path.parent)


def test_settings_that_do_nothing_make_no_other_row_of_schema_1(tmp_path: Path) -> None:
    """SFT's configuration held preference.beta too."""

    def row(method: str, **changes: Any) -> str:
        made = (
            whole()
            if method == "rosepo"
            else {**whole(), "family": "language_model", "preference": None, "oracle": None}
        )
        config = {**made["config"], **changes}
        shutil.rmtree(tmp_path / "records", ignore_errors=True)
        return records.read_record(write_v1(tmp_path, {**made, "method": method, "config": config})).row

    for method in ("sft", "rosepo"):
        assert row(method) != row(method, sft={"lr": 0.5})
        assert row(method) == row(method, dataset={"candidates": 99}, threads=9)
    assert row("sft") == row("sft", preference={"beta": 0.5})
    assert row("rosepo") != row("rosepo", preference={"beta": 0.5})
    assert row("rosepo") != row("rosepo", sasrec={"epochs": 5})


@pytest.mark.parametrize("name", ["protocol", "metrics", "oracle", "config", "stages", "throughput"])
def test_a_torn_record_of_schema_1_is_named(name: str, tmp_path: Path) -> None:
    made = whole()
    del made[name]
    path = write_v1(tmp_path, made)
    with pytest.raises(UserError, match=f"not a whole record of schema 1 .*'{name}'"):
        records.read_record(path)
