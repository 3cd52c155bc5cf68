"""The studies of trained models at toy size, so that they still run when somebody wants their tables again."""

from __future__ import annotations

import json
from pathlib import Path

import losses_study
import numpy as np
import pytest
import ranking_study
import study
import trees_study
from running import MICRO

from rosepo_bench.base.plugins import registry
from rosepo_bench.base.record_schema import digest_of
from rosepo_bench.engine.ranking.result import Ranking
from rosepo_bench.losses.base import Loss


def arguments(folder: Path, *more: str) -> list[str]:
    """Of a run of seconds on a small replica."""
    where = ["--out", str(folder / "out"), "--into", str(folder / "study.md"), "--cache-dir", str(folder / "cache")]
    return ["--profile", str(MICRO), "--dataset", "steam", "--offline", *where, *more]


def rows(path: Path) -> list[list[str]]:
    """The cells of all tables, their heads and rules left out."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    heads = {n for n, line in enumerate(lines) if line.startswith("|:-")}
    kept = [line for n, line in enumerate(lines) if not {n, n + 1} & heads]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in kept]


def test_ranking_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = ("--users", "6", "--set", "sft.epochs=0.3")
    assert study.run(ranking_study.main, arguments(tmp_path, *more)) == 0
    found = rows(tmp_path / "study.md")
    assert [row[:2] for row in found[:2]] == [["sum", "6 of 6"], ["mean", "6 of 6"]]
    assert [row[:2] for row in found[2:]] == [["sum", "10"], ["sum", "20"], ["mean", "10"], ["mean", "20"]]
    monkeypatch.setattr("agreement.TIE", 0.0)
    assert study.run(ranking_study.main, arguments(tmp_path, *more)) == 1
    assert study.run(ranking_study.main, arguments(tmp_path, "--users", "500", *more[2:])) == 2


def test_recall_counts_titles_as_good_as_the_exact_last() -> None:
    def ranking(*scores: list[float]) -> Ranking:
        return Ranking(np.zeros((len(scores), 3), np.int64), np.array(scores), np.zeros(len(scores), np.int64), 1)

    exact = ranking([-1.0, -2.0, -3.0], [-1.0, -2.0, -3.0], [-1.0, -2.0, -2.0])
    found = ranking([-1.0, -2.0, -3.0 - 1e-6], [-2.0, -3.0, -4.0], [-1.0, -np.inf, -np.inf])
    np.testing.assert_allclose(ranking_study.recall(exact, found), [1, 2 / 3, 1 / 3])


def test_trees_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [
        f"--set={one}" for one in ("oracles.sasrec.epochs=1", "sft.epochs=0.5", "prompt.history=4", "model.hidden=16")
    ]
    line = arguments(tmp_path, *settings)
    assert study.run(trees_study.main, [*line, "--seeds", "2"]) == 0
    found = rows(tmp_path / "study.md")
    assert tuple(row[0] for row in found[: len(trees_study.METHODS)]) == trees_study.METHODS
    cost = {(row[0], row[1]): row[2:] for row in found if row[1] in {way.name for way in trees_study.WAYS}}
    tokens = [int(cost["dpo", way.name][2].replace(",", "")) for way in trees_study.WAYS]
    assert cost["dpo", trees_study.OURS.name][0] == "120"
    assert tokens[0] < min(tokens[1:])
    assert len(set(tokens)) == 3
    assert "equal to the last bit" in (tmp_path / "study.md").read_text().replace("\n", " ")

    records = sorted((tmp_path / "out").glob("*/records/*/dpo/*/record.json"))
    before = [path.stat().st_mtime_ns for path in records]
    assert study.run(trees_study.main, [*line, "--seeds", "1"]) == 0
    assert before == [path.stat().st_mtime_ns for path in records]
    assert len(records) == 6  # three ways, two seeds

    changed = json.loads(records[0].read_text())
    changed["diagnostics"]["preference"]["pairs_seen"] += 1
    changed["sha256"] = digest_of(changed)
    records[0].write_text(json.dumps(changed))
    capsys.readouterr()
    assert study.run(trees_study.main, [*line, "--seeds", "1"]) == 2
    assert "dpo, seed 0: pairs seen differ" in capsys.readouterr().err


@pytest.mark.parametrize(
    "setting", ["prompt.anchor=2", 'datasets.steam.overrides={"prompt.anchor"=2}', 'method.dpo.training.trees="prompt"']
)
def test_trees_study_refuses_settings_that_it_compares(
    setting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study.run(trees_study.main, [*arguments(tmp_path), "--set", setting]) == 2
    assert "leave it out" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/stages/*"))


def test_losses_study(tmp_path: Path) -> None:
    """Every loss trains, and says margins that are numbers; what its caption counts is counted."""
    line = arguments(tmp_path, "--set=sft.epochs=0.3", "--set=preference.pairs=40", "--set=preference.lr=3e-3")
    assert study.run(losses_study.main, line) == 0
    found = rows(tmp_path / "study.md")
    names = {row[0] for row in found}
    assert names >= set(registry(Loss).names())
    assert {row[1] for row in found if row[0] == "sdpo"} == {"1", "3"}
    assert {row[1] for row in found if row[0] == "ipo"} == {"1"}
    told = [row for row in found if row[0] in registry(Loss).names()]
    assert all(np.isfinite(float(cell)) for row in told for cell in row[3:7])
    assert len({tuple(row[3:5]) for row in told}) > 10
    assert [row[0] for row in told if row[-1] != "–"] == ["beta_dpo", "beta_dpo", "dr_dpo", "dr_dpo", "kto"]
