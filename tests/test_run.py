"""`run`, from the command line: records, determinism, resume, isolation, refusals."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import MICRO, assert_same, call, command, results

from rosepo_bench import cli
from rosepo_bench.base import records, store


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one complete run."""
    out = tmp_path_factory.mktemp("run")
    done = call("run", out, "--all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 of 5 cells done" in done.stdout
    return out


def test_records_hold_what_the_tables_need(finished: Path) -> None:
    found = results(finished)
    assert set(found) == {f"steam/{name}/0" for name in ("popularity", "sasrec", "sft", "dpo", "rosepo")}
    record, predictions = found["steam/rosepo/0"]
    assert record["schema"] == records.SCHEMA
    assert record["data"]["kind"] == "synthetic"
    measured = record["evaluations"]["candidates-sum"]["metrics"]["hr@1"]
    assert record["data"]["users"] == len(predictions["rank"]) == measured["n"]
    assert measured["value"] == np.mean(predictions["rank"] == 1)
    preference = record["diagnostics"]["preference"]
    assert preference["pairs_seen"] == 120
    assert 0 < preference["epsilon"]["mean"] < 0.5
    assert sum(preference["epsilon"]["counts"]) == 120
    whole = json.loads(next(finished.glob("records/steam/rosepo/*/record.json")).read_text())
    assert whole["throughput"]["peak_memory_since"] in ("block", "process start")
    assert set(preference["margin_accuracy"]) == {"before", "after"}
    assert set(record["diagnostics"]["oracle"]["temperatures"]) == {"self_hard", "semantic", "popularity"}
    assert found["steam/dpo/0"][0]["diagnostics"]["preference"]["epsilon"]["mean"] == 0
    # Every method starts from one SFT model and ranks the same candidates.
    assert len({found[f"steam/{name}/0"][0]["stages"]["sft"] for name in ("sft", "dpo", "rosepo")}) == 1
    assert len({cell[0]["data"]["candidates_sha256"] for cell in found.values()}) == 1


def test_the_report_says_synthetic_and_stands_on_records_alone(finished: Path) -> None:
    written = (finished / "report.md").read_text()
    assert "synthetic data" in written
    assert "popularity" in written
    (finished / "report.md").unlink()
    again = call_report(finished)
    assert again.returncode == 0, again.stderr
    assert (finished / "report.md").read_text() == written


def call_report(out: Path) -> subprocess.CompletedProcess[str]:
    line = command("report", out)
    return subprocess.run([*line[:4], "--out", str(out)], capture_output=True, text=True, timeout=120, check=False)


def test_a_second_run_changes_nothing(finished: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in finished.glob("records/**/*.*")}
    again = call("run", finished, "--all")
    assert again.returncode == 0, again.stderr
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in finished.glob("records/**/*.*")} == before
    plan = call("plan", finished, "--all", "--json")
    assert {row["state"] for row in json.loads(plan.stdout)} == {"done"}


def test_same_seed_same_records_and_another_seed_others(finished: Path, tmp_path: Path) -> None:
    again = call("run", tmp_path, "--all")
    assert again.returncode == 0, again.stderr
    assert_same(finished, tmp_path)
    other = call("run", tmp_path / "other", "--all", "--set", "first_seed=1")
    assert other.returncode == 0, other.stderr
    first, second = results(finished), results(tmp_path / "other")
    for name in ("sasrec", "sft", "dpo", "rosepo"):
        assert not np.array_equal(first[f"steam/{name}/0"][1]["scores"], second[f"steam/{name}/1"][1]["scores"]), name


def test_a_failed_cell_is_isolated_and_named(finished: Path, tmp_path: Path) -> None:
    """A loss that diverges stops its own cell; the others finish, and the exit status is 3."""
    broken = ["--set", "method.dpo.training.lr=1e30", "--methods", "popularity,dpo,sft"]
    done = call("run", tmp_path, *broken)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "FAILED steam/dpo/seed0" in done.stdout
    assert "failed: steam/dpo/seed0" in done.stdout
    assert set(results(tmp_path)) == {"steam/popularity/0", "steam/sft/0"}
    assert "failed" in (tmp_path / "report.md").read_text()
    mended = call("run", tmp_path, "--methods", "popularity,dpo,sft")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert results(tmp_path)["steam/dpo/0"][1]["rank"].tolist() == results(finished)["steam/dpo/0"][1]["rank"].tolist()


DIVERGED = [
    ("sft.lr", "sft", ["sft", "dpo"], "the gradient is 0 since step 1 (of 16"),
    ("method.dpo.training.lr", "dpo", ["dpo"], "the gradient is 0 since step 1 (of 7"),
    ("oracles.sasrec.lr", "sasrec", ["sasrec"], "the loss is nan at step 1 (of 8"),
]


@pytest.mark.parametrize(("key", "method", "failed", "what"), DIVERGED, ids=[case[0] for case in DIVERGED])
def test_a_training_that_diverges_names_the_setting_to_lower(
    key: str, method: str, failed: list[str], what: str, tmp_path: Path
) -> None:
    """Data set, method, step and learning rate too; the cells that need none of it go on."""
    done = call("run", tmp_path, "--methods", "sasrec,sft,dpo", "--set", f"{key}=1e6")
    assert done.returncode == 3, done.stdout + done.stderr
    said = next(line for line in done.stdout.splitlines() if f"FAILED steam/{method}/seed0" in line)
    assert f"steam {method}: {what}, counted from 0), where the learning rate is 1e+06" in said
    assert f"lower {key} (1e+06)" in said
    assert set(results(tmp_path)) == {f"steam/{name}/0" for name in ("sasrec", "sft", "dpo") if name not in failed}


REFUSED = [
    (["--set", "preference.epoch=1"], "unknown key 'preference.epoch'; did you mean 'epochs'?"),
    (["--set", "preference.beta=1"], "unknown key 'preference.beta'; it is now losses.NAME.beta, or method.NAME.loss"),
    (["--set", "method.*.loss.beta=big"], "method.dpo.loss.beta = 'big': want a number"),
    (["--set", "method.*.loss.bta=1"], "method.*.loss.bta: none of the methods has such a setting"),
    (["--set", "method.x*.loss.beta=1"], "[method.x*]: no method has such a name"),
    (["--set", "losses.dpo.beta=0"], "losses.dpo.beta = 0.0: want > 0"),
    (["--set", "losses.dop.beta=1"], "unknown loss 'dop'; did you mean 'dpo'?"),
    (["--set", "losses.ipo.gamma=1"], "losses.ipo.gamma: there is no such setting; known: beta"),
    (["--set", "sft.epochs=inf"], "sft.epochs = inf"),
    (["--set", "sft.clip=0"], "sft.clip = 0: Input should be greater than 0"),
    (["--set", "sft.patience=2"], "patience = 2 has no effect with evaluations = 0"),
    (["--set", "oracles.sasrec.patience=2"], "sasrec.patience = 2 has no effect with evaluations = 0"),
    (["--set", "oracles.sasrec.betas=[0.9, 1.0]"], "oracles.sasrec.betas = 1.0: want >= 0 and < 1"),
    (["--set", "method.dpo.training.betas=[-0.1, 0.9]"], "method.dpo.training.betas.0 = -0.1: Input should be greater"),
    (["--set", "sft.betas=[0.9]"], "sft.betas"),
    (["--set", "oracles.sasrec.schedule=step"], "oracles.sasrec.schedule = 'step': want 'cosine' or 'linear' or"),
    (["--set", "oracles.sasrec.warmup=1.0"], "oracles.sasrec.warmup = 1.0: want >= 0 and < 1"),
    (["--set", "method.dpo.training.clip=-1", "--methods", "dpo"], "method.dpo.training.clip = -1"),
    (["--set", "method.dpo.lr=1e-3"], "write method.dpo.training.lr"),
    (["--set", "preference.dropout=0.1"], "preference.dropout = 0.1"),
    (
        ["--set", "smoothings.constant.value=0.7", "--methods", "cdpo"],
        "smoothings.constant.value = 0.7: want >= 0 and <=",
    ),
    (
        ["--set", "method.rosepo.smoothing.capp=0.3"],
        "method.rosepo.smoothing.capp: predicted has no such setting; did you",
    ),
    (["--set", "method.rosepo.loss=robust"], "gives ε up to 0.5, loss 'robust' takes at most 0.45: lower it"),
    (["--set", "method.rosepo.loss=dpo"], "loss 'dpo' takes none: set smoothing to 'zero'"),
    (["--set", "method.dpo.rejected=3"], "method.dpo.rejected = 3: loss 'dpo' takes one"),
    (["--set", "method.dpo.loss.epsilon=0.3"], "method.dpo.loss.epsilon: dpo has no such setting"),
    (["--set", "method.dpo.sampler.anchor=target"], "method.dpo.sampler.anchor: uniform has no such setting"),
    (["--set", "method.dpo.sampler=semantc"], "unknown sampler 'semantc'; did you mean 'semantic'?"),
    (["--set", "method.rosepos.rejected=1"], "did you mean 'rosepo'?"),
    (["--set", "protocols=['candidates']"], "unknown protocol 'candidates'; did you mean 'candidates-"),
    (["--set", "validation.metric=mrr"], "unknown metric 'mrr'"),
    (["--set", "method.rosepo.smoothing.folds=1000"], "smoothing.folds = 1000: must be between 2 and"),
    (["--set", "datasets.steam.users=1"], "1 test user: an interval needs at least two"),
    (["--methods", "rosep"], "unknown method 'rosep'; did you mean 'rosepo'?"),
    (["--methods", "sft,sft"], "listed twice"),
    (["--datasets", "steem"], "did you mean 'steam'?"),
    (["--set", "datasets.steam.core=60"], "nobody is left in the 60-core"),
    (["--set", "datasets.steam.candidates=2000"], "set `candidates` to at most 26"),
    (["--set", "model.context=40"], "the model's context is 40"),
    (["--set", "batch_tokens=80"], "a pass takes batch_tokens = 80; raise batch_tokens"),
    (["--set", "scoring.batch_tokens=80"], "a pass takes scoring.batch_tokens = 80; raise scoring.batch_tokens"),
    (["--set", "batch_tokens=0"], "batch_tokens = 0: Input should be greater than or equal to 64"),
    (["--set", "scoring.batch_tokens=-5"], "scoring.batch_tokens = -5: Input should be greater than or equal to 64"),
    (["--set", "prompt.anchor=20"], "prompt: anchor = 20 exceeds history = 19"),
    (["--set", "prompt.history=0"], "prompt.history = 0"),
    (["--set", "model.attention=flex", "--set", "model.device=cpu"], "model.attention = 'flex' trains on a GPU only"),
    (["--set", "model.name=gpt"], "expected 'tiny' or 'hf:NAME_OR_PATH'"),
    (["--set", "model.name=hf:no/such/model"], "no/such/model"),
    (["--set", "datasets.steam.synthetic=never"], "steam_reviews.json"),
    (["--profile", "dmeo"], "unknown profile 'dmeo'; did you mean 'demo'?"),
    (["--set", "seeds"], "expected key=value"),
    (["--set", "losses.dpo.beta=0.1\nx=3"], "expected key=value"),
    (["--set", "datasets=1"], "datasets = 1"),
    (["--datasets", "steam", "--set", "datasets.staem.users=10"], "datasets.staem"),
    (["--datasets", ","], "--datasets: no name given"),
    (["--set", "model.heads=3"], "must be an even multiple of heads = 3"),
    (["--set", "oracles.sasrec.heads=3"], "must be a multiple of heads = 3"),
    (["--set", "datasets.steam.overrides.threads=1"], "'threads' cannot differ between data sets"),
    (["--set", "datasets.steam.overrides.sft.epoch=1"], "did you mean 'epochs'?"),
    (["--methods", "dpo", "--set", "method.dpo.training.pairs=0"], "method.dpo.training.pairs = 0"),
    (["--set", "method.sft.training.pairs=3"], "method.sft.training: method.sft has no such setting"),
    (["--methods", "dpo", "--set", "model.impl=cuda"], "choose impl='cpp' or 'auto'"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[" ".join(case[0]) for case in REFUSED])
def test_bad_input_is_refused_before_any_work(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    out = tmp_path / "out"
    profile = [] if "--profile" in arguments else ["--profile", str(MICRO)]
    line = [
        "run",
        "--all",
        *profile,
        "--out",
        str(out),
        "--cache-dir",
        str(tmp_path / "cache"),
        "--offline",
        *arguments,
    ]
    assert cli.main(line) == 2
    assert message in capsys.readouterr().err
    assert not list(out.glob("records/**/*.json"))
    assert not list(out.glob("stages/*sft*"))


def test_two_processes_in_one_folder_make_the_records_of_one(finished: Path, tmp_path: Path) -> None:
    """One starts with the first cells, one with the last; both end with all cells done, and nothing is made twice."""
    orders = ("popularity,sasrec,sft,dpo,rosepo", "rosepo,dpo,sft,sasrec,popularity")
    both = [
        subprocess.Popen(command("run", tmp_path, "--methods", order), stdout=subprocess.PIPE, text=True)
        for order in orders
    ]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert_same(finished, tmp_path)
    for out in said:
        assert "5 of 5 cells done" in out
    made = Counter(line.strip() for out in said for line in out.splitlines() if re.fullmatch(r"  steam\.[\w.-]+", line))
    assert set(made.values()) == {1}, made
    assert "  steam.sft" in "".join(said)
    assert min(out.count("seed0\n") for out in said) > 0, "one process did all the work"


def test_stages_over_the_limit_go_once_no_cell_needs_them(finished: Path, tmp_path: Path) -> None:
    done = call("run", tmp_path, "--methods", "popularity,sft,dpo", "--set", "stage_gigabytes=1e-9")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for name in ("data", "test", "sft"):  # several cells need them
        assert lines.count(f"  steam.{name}") == 1, name
        removed = next(number for number, line in enumerate(lines) if line.startswith(f"  removed steam.{name}-"))
        assert removed > lines.index("steam/dpo/seed0"), name
    assert list((tmp_path / "stages").iterdir()) == []
    assert results(tmp_path)["steam/dpo/0"][0] == results(finished)["steam/dpo/0"][0]
    assert {row["state"] for row in plan(tmp_path, "--methods", "popularity,sft,dpo")} == {"done"}


def plan(out: Path, *arguments: str) -> list[dict[str, Any]]:
    shown = call("plan", out, "--json", *arguments)
    assert shown.returncode == 0, shown.stderr
    rows: list[dict[str, Any]] = json.loads(shown.stdout)
    return rows


def test_a_plan_says_what_such_stages_took(finished: Path, tmp_path: Path) -> None:
    """Another seed takes what the first one took; where nothing is measured, all is guessed."""
    rows = {(row["method"], row["seed"]): row for row in plan(finished, "--all", "--set", "seeds=2")}
    manifest = json.loads(next(finished.glob("stages/steam.sft-*/manifest.json")).read_text())
    assert {rows[method, 0]["estimated_seconds"] for method, _ in rows} == {0}
    assert rows["sft", 1]["measured_seconds"] == rows["sft", 1]["estimated_seconds"] >= round(manifest["seconds"], 1)
    assert {row["measured_seconds"] for row in plan(tmp_path, "--all")} == {0}
    assert (
        "100% of it from what such stages took in this folder"
        in call("plan", finished, "--all", "--set", "seeds=2").stdout
    )
    assert "(a guess, on two CPU cores)" in call("plan", tmp_path, "--all", "--set", "sft.epochs=1000").stdout


def test_a_record_of_a_newer_schema_is_refused(finished: Path, tmp_path: Path) -> None:
    source = next(finished.glob("records/steam/popularity/*/record.json"))
    target = tmp_path / source.relative_to(finished)
    store.write_json(target, {**json.loads(source.read_text()), "schema": records.SCHEMA + 1})
    refused = call_report(tmp_path)
    assert refused.returncode == 2
    assert f"schema {records.SCHEMA + 1}, but this program knows {records.SCHEMA}" in refused.stderr


def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "out"
    monkeypatch.setattr(os, "fsync", full)
    line = [
        "run",
        "--methods",
        "popularity",
        "--profile",
        str(MICRO),
        "--out",
        str(out),
        "--cache-dir",
        str(tmp_path),
    ]
    assert cli.main(line) == 2
    assert "disk full" in capsys.readouterr().err
    assert [path.name for path in out.rglob("*") if path.is_file()] == []
