"""``report --predictions`` of a run, and what it says to do where the prepared data are gone."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from running import MICRO

from rosepo_bench import cli


def test_predictions_of_a_run_can_be_told_again_after_its_stages_are_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that the error names brings the ids back; the records' own arrays say the same."""
    line = ["run", "--profile", str(MICRO), "--out", str(tmp_path), "--cache-dir", str(tmp_path / "c"), "--offline"]
    line += ["--set", "datasets.steam.noise=0.2"]
    assert cli.main([*line, "--methods", "popularity,sasrec"]) == 0
    shutil.rmtree(tmp_path / "stages")
    report = ["report", "--out", str(tmp_path), "--predictions", str(tmp_path / "p.csv")]
    assert cli.main(report) == 2
    said = capsys.readouterr().err
    again = "--datasets steam --methods popularity --force"
    assert f"`{again}`" in said
    assert cli.main([*line, *again.split()]) == 0
    assert cli.main(report) == 0
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "sasrec"]
    (path,) = tmp_path.glob("records/steam/sasrec/*/candidates-sum.npz")
    with np.load(path) as arrays:
        assert [row["user"] for row in rows] == arrays["user_ids"].tolist()
        assert [int(row["rank"]) for row in rows] == arrays["rank"].tolist()
        tops = arrays["top_titles"].tolist()
    for row, top in zip(rows, tops, strict=True):
        listed, scores = json.loads(row["candidates"]), json.loads(row["scores"])
        assert len(set(listed)) == len(listed) == len(scores) == 20
        assert listed[int(row["rank"]) - 1] == row["target"]
        assert listed[0] == top
        assert scores == sorted(scores, reverse=True)
