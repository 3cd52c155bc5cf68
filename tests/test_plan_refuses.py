"""A plan refuses what a run refuses, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import MICRO
from saved_model import save_model
from test_run import REFUSED
from test_selection import atomic

from rosepo_bench import cli
from rosepo_bench.data import catalog


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[" ".join(case[0]) for case in REFUSED])
def test_a_plan_refuses_what_a_run_refuses(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    profile = [] if "--profile" in arguments else ["--profile", str(MICRO)]
    folders = ["--out", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache")]
    assert cli.main(["plan", "--all", *profile, *folders, "--offline", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_plan_records_no_checksum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the data set's files and of a model's; a run does."""
    save_model("qwen3", tmp_path / "model")
    atomic(tmp_path / "files")
    settings = {"source": "atomic", "path": tmp_path / "files/mine", "synthetic": "auto", "candidates": 5}
    line = [
        "--profile",
        str(MICRO),
        "--out",
        str(tmp_path / "out"),
        "--cache-dir",
        str(tmp_path / "cache"),
        "--offline",
    ]
    for setting in (*(f"datasets.steam.{key}={value}" for key, value in settings.items()), "prompt.history=6"):
        line += ["--set", setting]
    line += ["--set", f"model.name=hf:{tmp_path / 'model'}"]
    assert cli.main(["plan", "--methods", "popularity,zero_shot", *line]) == 0
    assert "2 of 2 cells to do" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "model"]
    assert cli.main(["run", "--methods", "popularity", *line]) == 0
    assert (tmp_path / "cache" / "checksums.json").is_file()


def test_a_plan_takes_over_what_a_run_has_prepared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ["--profile", str(MICRO), "--out", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache"), "--offline"]
    assert cli.main(["run", "--methods", "popularity", *out]) == 0

    def refuse(*_: object) -> None:
        raise AssertionError("the data are prepared already")

    monkeypatch.setattr(catalog, "load", refuse)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    capsys.readouterr()
    assert cli.main(["plan", "--methods", "popularity,dpo", *out]) == 0
    assert "1 of 2 cells to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
