"""What the command line says reaches the cells that it names and no other; settings of one method that differ are rows
of their own; and a record that is not as it was written is made again."""

from __future__ import annotations

import csv
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
    """In the record, the folder's name and the plan; and it is the seed that the numbers come from."""
    arguments = ("--methods", "popularity,sasrec,sft", "--seeds", "2", *sets("first_seed=5"))
    rows = planned(tmp_path, capsys, *arguments)
    assert {row["state"] for row in rows} == {"waiting"}
    run(tmp_path, *arguments)
    assert [(row["method"], row["seed"]) for row in rows] == [
        (method, seed) for seed in (5, 6) for method in ("popularity", "sasrec", "sft")
    ]
    for row in rows:
        path = tmp_path / "records" / "steam" / row["method"] / f"seed{row['seed']}-{row['key'][:12]}" / "record.json"
        record = json.loads(path.read_text())
        assert (record["seed"], record["method"], record["key"]) == (row["seed"], row["method"], row["key"])
    assert len(rows) == len(results(tmp_path)) == len(list(tmp_path.glob("records/*/*/*/record.json")))
    assert not list(tmp_path.glob("failures/*"))
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
    sizes = {
        name: found[0]["evaluations"]["candidates-sum"]["facts"]["size"] for name, found in results(tmp_path).items()
    }
    assert sizes == {"other/sasrec/0": 11, "other/popularity/0": 11, "steam/popularity/0": 20}


def test_an_override_is_of_one_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = planned(tmp_path, capsys, "--all", *OTHER)
    changed = planned(tmp_path, capsys, "--all", *OTHER, *sets("datasets.other.overrides.method.*.loss.beta=0.2"))
    moved = {(a["dataset"], a["method"]) for a, b in zip(plain, changed, strict=True) if a["key"] != b["key"]}
    assert moved == {("other", "dpo"), ("other", "rosepo")}


@pytest.mark.parametrize(
    ("setting", "moved"),
    [
        ("method.rosepo.smoothing.cap=0.2", {"rosepo"}),
        ("method.dpo.loss.beta=0.5", {"dpo"}),
        ("losses.dpo.beta=0.5", {"dpo"}),
        ("method.dpo.training.lr=1e-3", {"dpo"}),
        ("method.dpo.rounds=2", {"dpo"}),
        ("samplers.popularity.exponent=0.5", {"rosepo"}),
        ("method.dpo.sampler=mixed", {"dpo"}),
        ("smoothings.predicted.folds=3", {"rosepo"}),
        ("validation.probes=50", {"rosepo"}),
        ("smoothings.predicted.correct_for_sampler=false", {"rosepo"}),
        ("preference.pairs=60", {"dpo", "rosepo"}),
        ("sft.lr=1e-3", {"sft", "dpo", "rosepo"}),
        ("oracles.sasrec.lr=1e-3", {"sasrec", "rosepo"}),
        ("datasets.steam.seed=1", {"popularity", "sasrec", "sft", "dpo", "rosepo"}),
        ("protocols=['candidates-mean']", {"popularity", "sasrec", "sft", "dpo", "rosepo"}),
        ("checkpoint_seconds=9.0", set()),
    ],
)
def test_a_setting_moves_the_keys_of_the_cells_it_reaches(
    setting: str, moved: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, changed = (planned(tmp_path, capsys, "--all", *given) for given in ((), sets(setting)))
    assert {a["method"] for a, b in zip(plain, changed, strict=True) if a["key"] != b["key"]} == moved


def rosepo(out: Path, table: str, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    """The rows of RosePO in one table of the report."""
    found = tables(shown(out, capsys), "steam")[table]
    return {name: row for name, row in found.items() if name.startswith("rosepo")}


def test_one_methods_setting_leaves_the_others_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The cap of RosePO's ε: other records stay to the byte, its own is a second one beside the first, and the report
    has a row of each, named by the cap."""
    methods = ("--methods", "sft,dpo,rosepo")
    run(tmp_path, *methods)
    before = files(tmp_path)
    (only,) = rosepo(tmp_path, "Preference training", capsys).items()
    run(tmp_path, *methods, *sets("method.rosepo.smoothing.cap=0.05"))
    after = files(tmp_path)
    assert {name: after[name] for name in before} == before
    fresh = {name for name in after if name not in before}
    planned_rows = planned(tmp_path, capsys, *methods, *sets("method.rosepo.smoothing.cap=0.05"))
    (key,) = (row["key"] for row in planned_rows if row["method"] == "rosepo")
    assert fresh == {f"records/steam/rosepo/seed0-{key[:12]}/{name}" for name in ("record.json", "candidates-sum.npz")}
    told, first = (
        json.loads(text)["diagnostics"]["preference"]["epsilon"]
        for text in (
            after[f"records/steam/rosepo/seed0-{key[:12]}/record.json"],
            before[next(n for n in before if "rosepo" in n and "json" in n)],
        )
    )
    assert told["mean"] < 0.05 < first["mean"]
    names = {0.05: "rosepo (smoothing.cap=0.05)", 0.5: "rosepo (smoothing.cap=0.5)"}
    rows = rosepo(tmp_path, "Preference training", capsys)
    assert only[0] == "rosepo"
    assert rows.keys() == set(names.values())
    assert rows[names[0.05]]["ε, training"] == f"{told['mean']:.3f} ± {told['sd']:.3f}"
    assert {**rows[names[0.5]], "method": "rosepo"} == only[1]
    text = shown(tmp_path, capsys)
    assert set(tables(text, "steam")["Quality"]) == {"sft", "dpo", *names.values()}
    run(tmp_path, *methods)  # back again: nothing to do
    assert files(tmp_path) == after
    assert shown(tmp_path, capsys) == text


def test_two_values_of_a_loss_are_two_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named by the setting alone that differs; SFT stays one row, and the third value is a row more. Under the smallest
    β margins weigh least: its weights are others'."""
    for beta in (1.0, 0.2):
        run(tmp_path, "--methods", "sft,dpo", *sets(f"losses.dpo.beta={beta}", "preference.lr=1e-2"))
    found = tables(shown(tmp_path, capsys), "steam")
    names = ["dpo (loss.beta=0.2)", "dpo (loss.beta=1.0)"]
    for table in ("Quality", "Differences in HR@1", "Throughput"):
        assert sorted(found[table]) == [*names, "sft"]
    assert {name: row["β"] for name, row in found["Preference pairs"].items()} == {names[0]: "0.2", names[1]: "1"}
    assert {row["seeds"] for row in found["Quality"].values()} == {"1"}
    with (tmp_path / "results.csv").open(encoding="utf-8") as file:
        betas = {(row["method"], row["value"]) for row in csv.DictReader(file) if row["metric"] == "beta"}
    assert betas == {(names[0], "0.2"), (names[1], "1")}
    scores = [np.load(path)["scores"] for path in tmp_path.glob("records/steam/dpo/*/candidates-sum.npz")]
    assert np.abs(scores[0] - scores[1]).max() > 1e-3
    assert len(list(tmp_path.glob("stages/steam.sft-*"))) == 1


def test_of_one_row_and_seed_the_newest_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On how many users an oracle is probed changes no number of the method's: two records, one row. Asked for the
    first again, there is nothing to do, and nothing is missing."""
    methods = ("--methods", "rosepo")
    run(tmp_path, *methods)
    run(tmp_path, *methods, *sets("validation.probes=50"))
    records = {path: json.loads(path.read_text()) for path in tmp_path.glob("records/steam/rosepo/*/record.json")}
    assert len(records) == 2
    assert len({one["row"] for one in records.values()}) == 1
    newest = max(records.values(), key=lambda one: one["created"])
    assert newest["diagnostics"]["oracle"]["accuracy"]["n"] == 50
    row = tables(shown(tmp_path, capsys), "steam")["Preference oracle"]["the oracle"]
    assert (
        f"uniform {newest['diagnostics']['oracle']['accuracy']['value']:.3f} [" in row["accuracy and τ by kind of pair"]
    )
    assert rosepo(tmp_path, "Quality", capsys)["rosepo"]["seeds"] == "1"
    before = files(tmp_path)
    run(tmp_path, *methods)
    assert "1 of 1 cells done" in capsys.readouterr().out
    assert files(tmp_path) == before


def test_a_failed_cell_is_not_done_and_lends_its_row_no_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under a learning rate that diverges DPO fails: a note says why, and its row is ``failed``. Another learning rate
    is another cell, that waits; run to its end it has a row, and the note is gone."""
    methods, broken = ("--methods", "sft,dpo"), sets("method.dpo.training.lr=1e30")
    run(tmp_path, *methods, *broken, status=3)
    rows = planned(tmp_path, capsys, *methods, *broken)
    assert {row["method"]: row["state"] for row in rows} == {"sft": "done", "dpo": "failed"}
    (note,) = tmp_path.glob("failures/*")
    told = json.loads(note.read_text())
    (key,) = (row["key"] for row in rows if row["method"] == "dpo")
    assert note.name == "steam-dpo-seed0.json"
    assert (told["dataset"], told["method"], told["seed"], told["key"]) == ("steam", "dpo", 0, key)
    assert "Training has diverged" in told["reason"]
    assert any("raise UserError" in line for line in told["traceback"])
    for others in ((), sets("method.dpo.loss.beta=0.4")):
        states = {row["method"]: row["state"] for row in planned(tmp_path, capsys, *methods, *others)}
        assert states == {"sft": "done", "dpo": "waiting"}
    assert not list(tmp_path.glob("records/*/dpo/*"))
    text = shown(tmp_path, capsys)
    row = tables(text, "steam")["Quality"]["dpo"]
    assert (row["seeds"], row["HR@1"], row["HR@5"]) == ("0", "failed", "–")
    assert "dpo" not in tables(text, "steam")["Differences in HR@1"]
    assert ",dpo," not in (tmp_path / "results.csv").read_text()
    run(tmp_path, *methods)
    assert tables(shown(tmp_path, capsys), "steam")["Quality"]["dpo"]["seeds"] == "1"
    assert not list(tmp_path.glob("failures/*"))


def test_a_failure_beside_an_older_row_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """DPO has a record under another learning rate: the numbers stand in that row, and the other one is ``failed``."""
    methods, broken = ("--methods", "sft,dpo"), sets("method.dpo.training.lr=1e30")
    run(tmp_path, *methods)
    before, row = files(tmp_path), tables(shown(tmp_path, capsys), "steam")["Quality"]["dpo"]
    run(tmp_path, *methods, *broken, status=3)
    assert "failed: steam/dpo/seed0" in capsys.readouterr().out
    assert files(tmp_path) == before
    text = shown(tmp_path, capsys)
    quality, (good, bad) = tables(text, "steam")["Quality"], (f"dpo (preference.lr={lr})" for lr in ("0.0005", "1e+30"))
    assert {**quality[good], "method": "dpo"} == row
    assert (quality[bad]["seeds"], quality[bad]["HR@1"]) == ("0", "failed")
    assert f"- {bad}, seed 0: failed: UserError: " in text


@pytest.mark.parametrize("broken", ["lost", "changed", "record"])
def test_a_record_that_is_not_as_it_was_written_is_made_again(
    broken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``report`` leaves it out and names it, ``plan`` has it to do, ``run`` says why it makes it again: the same."""
    methods = ("--methods", "popularity,sasrec")
    run(tmp_path, *methods)
    (record,) = tmp_path.glob("records/steam/sasrec/*/record.json")
    predictions, before, found = record.with_name("candidates-sum.npz"), files(tmp_path), results(tmp_path)
    named, said = predictions, "is not the file that the record was written with"
    if broken == "lost":
        said = "is missing"
        predictions.unlink()
    elif broken == "changed":
        with np.load(predictions) as arrays:
            np.savez(predictions, **{**arrays, "rank": arrays["rank"][::-1]})
    else:
        named, said = record, "has changed since it was written"
        record.write_text(record.read_text().replace('"steam-replica"', '"steam"'))
    text = shown(tmp_path, capsys)
    assert f"{named} {said}" in " ".join(text.split("## steam")[0].split())
    assert set(tables(text, "steam")["Quality"]) == {"popularity"}
    assert ",sasrec," not in (tmp_path / "results.csv").read_text()
    states = {row["method"]: row["state"] for row in planned(tmp_path, capsys, *methods)}
    assert states == {"popularity": "done", "sasrec": "waiting"}
    capsys.readouterr()
    run(tmp_path, *methods)
    out = capsys.readouterr()
    again = f"steam/sasrec/{record.parent.name} is made again: {named} {said}"
    assert (out.out + out.err).count(again) == 1
    assert "left out" not in shown(tmp_path, capsys)
    assert_same_results(results(tmp_path), found)
    assert {name for name, content in files(tmp_path).items() if content != before[name]} == {
        str(record.relative_to(tmp_path))
    }


def assert_same_results(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert one.keys() == two.keys()
    for cell, (record, arrays) in one.items():
        assert {**record, "evaluations": 0} == {**two[cell][0], "evaluations": 0}
        assert record["evaluations"] == two[cell][0]["evaluations"]
        for name, values in arrays.items():
            np.testing.assert_array_equal(values, two[cell][1][name])


def test_two_protocols_in_one_run_are_two_sections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of one and the same models: the second section's numbers are those of a run of its own rule alone where titles
    are not mined; what is trained is trained once."""
    methods, both = ("--methods", "popularity,sft,dpo"), "protocols=['candidates-sum','candidates-mean']"
    run(tmp_path, *methods, *sets(both))
    text = shown(tmp_path, capsys)
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    names = [f"steam, candidates-{rule}" for rule in ("sum", "mean")]
    assert headings == [f"## {name}: synthetic data" for name in names]
    alone = tmp_path / "alone"
    run(alone, *methods, *sets("protocols=['candidates-mean']"))
    single = tables(shown(alone, capsys), "steam")
    first, second = (tables(text, name) for name in names)
    assert second["Quality"] == single["Quality"] != first["Quality"]
    assert second["Quality"]["popularity"] == first["Quality"]["popularity"]
    assert second["Differences in HR@1"].keys() == {"popularity", "sft", "dpo"}
    assert "Throughput" in first
    assert "Throughput" not in second
    assert len(list(tmp_path.glob("stages/steam.dpo-*"))) == 1
    for path in tmp_path.glob("records/steam/*/*/record.json"):
        record = json.loads(path.read_text())
        assert set(record["evaluations"]) == {path.stem for path in path.parent.glob("*.npz")}
        assert len(record["evaluations"]) == 2
