"""What the command line says reaches the cells that it names and no other; and the report is of the cells that were
asked for last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_hand import run, sets, tables
from running import MICRO, results

from rosepo_bench import cli

OTHER = sets(
    *("datasets.other.source=steam", "datasets.other.core=5", "datasets.other.synthetic=always"),
    *("datasets.other.replica_users=150", "datasets.other.seed=9", "datasets.other.candidates=11"),
)


def files(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.glob("records/**/*")) if p.is_file()}


def index(out: Path) -> dict[str, dict[str, Any]]:
    return json.loads((out / "index.json").read_text())


def planned(out: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """The rows of ``plan``."""
    capsys.readouterr()
    line = ["plan", "--profile", str(MICRO), "--out", str(out), "--cache-dir", str(out / "cache"), "--offline"]
    assert cli.main([*line, "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def shown(out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What ``report`` prints."""
    capsys.readouterr()
    assert cli.main(["report", "--out", str(out)]) == 0
    return capsys.readouterr().out


def test_a_cells_seed_is_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the record, the folder's name, the index and the plan; and it is the seed that the numbers come from."""
    arguments = ("--methods", "popularity,sasrec,sft", "--seeds", "2", *sets("first_seed=5"))
    rows = planned(tmp_path, capsys, *arguments)
    assert {row["state"] for row in rows} == {"waiting"}
    run(tmp_path, *arguments)
    assert [(row["method"], row["seed"]) for row in rows] == [
        (method, seed) for seed in (5, 6) for method in ("popularity", "sasrec", "sft")
    ]
    for row in rows:
        entry = index(tmp_path)[f"steam/{row['method']}/seed{row['seed']}"]
        assert (entry["seed"], entry["method"], entry["key"], entry["failed"]) == (
            row["seed"],
            row["method"],
            row["key"],
            "",
        )
        path = tmp_path / "records" / "steam" / row["method"] / f"seed{row['seed']}-{row['key'][:12]}" / "record.json"
        record = json.loads(path.read_text())
        assert (record["seed"], record["method"], record["key"]) == (row["seed"], row["method"], row["key"])
    assert len(index(tmp_path)) == len(rows) == len(results(tmp_path))
    assert {row["state"] for row in planned(tmp_path, capsys, *arguments)} == {"done"}
    alone = tmp_path / "alone"
    run(alone, "--methods", "sasrec,sft", *sets("first_seed=6"))
    for method in ("sasrec", "sft"):
        five, six = (results(tmp_path)[f"steam/{method}/{seed}"][1]["scores"] for seed in (5, 6))
        assert np.abs(five - six).max() > 1e-3
        np.testing.assert_array_equal(results(alone)[f"steam/{method}/6"][1]["scores"], six)
    same = [results(tmp_path)[f"steam/popularity/{seed}"][1]["scores"] for seed in (5, 6)]
    np.testing.assert_array_equal(*same)


def test_only_what_is_selected_runs(tmp_path: Path) -> None:
    run(tmp_path, "--datasets", "other", "--methods", "sasrec", *OTHER)
    assert set(results(tmp_path)) == {"other/sasrec/0"}
    run(tmp_path, "--methods", "popularity", *OTHER)
    assert set(results(tmp_path)) == {"other/sasrec/0", "other/popularity/0", "steam/popularity/0"}
    sizes = {name: found[0]["protocol"]["size"] for name, found in results(tmp_path).items()}
    assert sizes == {"other/sasrec/0": 11, "other/popularity/0": 11, "steam/popularity/0": 20}


def test_an_override_is_of_one_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = planned(tmp_path, capsys, "--all", *OTHER)
    changed = planned(tmp_path, capsys, "--all", *OTHER, *sets("datasets.other.overrides.preference.beta=0.2"))
    moved = {(a["dataset"], a["method"]) for a, b in zip(plain, changed, strict=True) if a["key"] != b["key"]}
    assert moved == {("other", "dpo"), ("other", "rosepo")}


@pytest.mark.parametrize(
    ("setting", "moved"),
    [
        ("method.rosepo.epsilon_max=0.2", {"rosepo"}),
        ("method.dpo.beta=0.5", {"dpo"}),
        ("oracle.folds=3", {"rosepo"}),
        ("oracle.probes=50", {"rosepo"}),
        ("oracle.correct_for_sampler=false", {"rosepo"}),
        ("preference.pairs=60", {"dpo", "rosepo"}),
        ("sft.lr=1e-3", {"sft", "dpo", "rosepo"}),
        ("sasrec.lr=1e-3", {"sasrec", "rosepo"}),
        ("datasets.steam.seed=1", {"popularity", "sasrec", "sft", "dpo", "rosepo"}),
        ("scoring.score=mean", {"popularity", "sasrec", "sft", "dpo", "rosepo"}),
        ("checkpoint_seconds=9.0", set()),
    ],
)
def test_a_setting_moves_the_keys_of_the_cells_it_reaches(
    setting: str, moved: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, changed = (planned(tmp_path, capsys, "--all", *given) for given in ((), sets(setting)))
    assert {a["method"] for a, b in zip(plain, changed, strict=True) if a["key"] != b["key"]} == moved


def test_one_methods_setting_leaves_the_others_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The cap of RosePO's ε: other records stay to the byte, its own is a second one beside the first, and the report
    is of the second."""
    methods = ("--methods", "sft,dpo,rosepo")
    run(tmp_path, *methods)
    before, first = files(tmp_path), index(tmp_path)
    run(tmp_path, *methods, *sets("method.rosepo.epsilon_max=0.05"))
    after, second = files(tmp_path), index(tmp_path)
    assert {name: after[name] for name in before} == before
    fresh = {name for name in after if name not in before}
    key = second["steam/rosepo/seed0"]["key"]
    assert fresh == {f"records/steam/rosepo/seed0-{key[:12]}/{name}" for name in ("record.json", "predictions.npz")}
    assert {name for name in first if first[name] != second[name]} == {"steam/rosepo/seed0"}
    told = json.loads(after[f"records/steam/rosepo/seed0-{key[:12]}/record.json"])["preference"]["epsilon"]
    assert (
        told["mean"]
        < 0.05
        < json.loads(before[next(n for n in before if "rosepo" in n and "json" in n)])["preference"]["epsilon"]["mean"]
    )
    row = tables(shown(tmp_path, capsys), "steam")["Preference training"]["rosepo"]
    assert row["ε, training"] == f"{told['mean']:.3f} ± {told['sd']:.3f}"
    run(tmp_path, *methods)  # back again: nothing to do, and the report is of the first
    assert files(tmp_path) == after
    assert index(tmp_path) == first
    assert tables(shown(tmp_path, capsys), "steam")["Preference training"]["rosepo"] != row


def test_a_failed_cell_is_not_done_and_shows_no_older_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """DPO has a record; under a learning rate that diverges it fails, and the older record is not of that cell."""
    methods, broken = ("--methods", "sft,dpo"), sets("method.dpo.lr=1e30")
    run(tmp_path, *methods)
    assert tables(shown(tmp_path, capsys), "steam")["Quality"]["dpo"]["seeds"] == "1"
    run(tmp_path, *methods, *broken, status=3)
    states = {row["method"]: row["state"] for row in planned(tmp_path, capsys, *methods, *broken)}
    assert states == {"sft": "done", "dpo": "failed"}
    entry = index(tmp_path)["steam/dpo/seed0"]
    assert "Training has diverged" in entry["failed"]
    others = planned(tmp_path, capsys, *methods, *sets("method.dpo.beta=0.4"))
    assert {row["method"]: row["state"] for row in others} == {"sft": "done", "dpo": "waiting"}
    assert not list(tmp_path.glob(f"records/*/*/seed0-{entry['key'][:12]}"))
    text = shown(tmp_path, capsys)
    row = tables(text, "steam")["Quality"]["dpo"]
    assert (row["seeds"], row["HR@1"], row["HR@5"]) == ("0", "failed", "–")
    assert "dpo" not in tables(text, "steam")["Differences in HR@1"]
    assert ",dpo," not in (tmp_path / "results.csv").read_text()
    run(tmp_path, *methods)
    assert tables(shown(tmp_path, capsys), "steam")["Quality"]["dpo"]["seeds"] == "1"
    assert index(tmp_path)["steam/dpo/seed0"]["failed"] == ""
