"""`run`, from the command line: records, determinism, resume, isolation, refusals."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

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
    assert record["data"]["users"] == len(predictions["rank"]) == record["metrics"]["hr@1"]["n"]
    assert record["metrics"]["hr@1"]["value"] == np.mean(predictions["rank"] == 1)
    preference = record["preference"]
    assert preference["pairs_seen"] == 120
    assert 0 < preference["epsilon"]["mean"] < 0.5
    assert sum(preference["epsilon"]["counts"]) == 120
    whole = json.loads(next(finished.glob("records/steam/rosepo/*/record.json")).read_text())
    assert whole["throughput"]["peak_memory_since"] in ("block", "process start")
    assert set(preference["margin_accuracy"]) == {"before", "after"}
    assert set(record["oracle"]["temperatures"]) == {"self_hard", "semantic", "popularity"}
    assert found["steam/dpo/0"][0]["preference"]["epsilon"]["mean"] == 0
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


def test_a_run_killed_three_times_ends_with_the_same_numbers(finished: Path, tmp_path: Path) -> None:
    kills = random.Random(int(os.environ.get("ROSEPO_TEST_SEED", "5")))
    for _ in range(3):
        process = subprocess.Popen(
            command("run", tmp_path, "--all"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(kills.uniform(2.5, 6.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = call("run", tmp_path, "--all")
    assert last.returncode == 0, last.stdout + last.stderr
    assert_same(finished, tmp_path)


def test_a_failed_cell_is_isolated_and_named(finished: Path, tmp_path: Path) -> None:
    """A loss that diverges stops its own cell; the others finish, and the exit status is 3."""
    broken = ["--set", "method.dpo.lr=1e30", "--methods", "popularity,dpo,sft"]
    done = call("run", tmp_path, *broken)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "FAILED steam/dpo/seed0" in done.stdout
    assert "failed: steam/dpo/seed0" in done.stdout
    assert set(results(tmp_path)) == {"steam/popularity/0", "steam/sft/0"}
    assert "failed" in (tmp_path / "report.md").read_text()
    mended = call("run", tmp_path, "--methods", "popularity,dpo,sft")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert results(tmp_path)["steam/dpo/0"][1]["rank"].tolist() == results(finished)["steam/dpo/0"][1]["rank"].tolist()


REFUSED = [
    (["--set", "preference.bta=1"], "unknown key 'preference.bta'; did you mean 'beta'?"),
    (["--set", "preference.beta=big"], "preference.beta = 'big'"),
    (["--set", "sft.epochs=inf"], "sft.epochs = inf"),
    (["--set", "sft.clip=0"], "sft.clip = 0: Input should be greater than 0"),
    (["--set", "sasrec.betas=[0.9, 1.0]"], "sasrec.betas.1 = 1.0: Input should be less than 1"),
    (["--set", "preference.betas=[-0.1, 0.9]"], "preference.betas.0 = -0.1: Input should be greater than or equal"),
    (["--set", "sft.betas=[0.9]"], "sft.betas"),
    (["--set", "sasrec.schedule=step"], "sasrec.schedule = 'step': Input should be 'cosine', 'linear' or 'constant'"),
    (["--set", "sasrec.warmup=1.0"], "sasrec.warmup = 1.0: Input should be less than 1"),
    (["--set", "method.dpo.clip=-1", "--methods", "dpo"], "method.dpo.clip = -1"),
    (["--set", "preference.dropout=0.1"], "preference.dropout = 0.1"),
    (["--set", "preference.epsilon=0.7"], "preference.epsilon = 0.7"),
    (["--set", "method.rosepo.epsilonmax=0.3"], "unknown key 'method.rosepo.epsilonmax'; did you mean 'epsilon_max'?"),
    (["--set", 'method.rosepo.form="robust"'], "the robust form takes ε up to 0.45, the settings allow 0.5"),
    (["--set", "method.rosepos.beta=1"], "did you mean 'rosepo'?"),
    (["--methods", "rosep"], "unknown method 'rosep'; did you mean 'rosepo'?"),
    (["--methods", "sft,sft"], "listed twice"),
    (["--datasets", "steem"], "did you mean 'steam'?"),
    (["--set", "datasets.steam.core=60"], "nobody is left in the 60-core"),
    (["--set", "datasets.steam.candidates=2000"], "set a smaller `candidates`"),
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
    (["--set", "preference.beta=0.1\nx=3"], "expected key=value"),
    (["--set", "datasets=1"], "datasets = 1"),
    (["--datasets", "steam", "--set", "datasets.staem.users=10"], "datasets.staem"),
    (["--datasets", ","], "--datasets: no name given"),
    (["--set", "model.heads=3"], "must be an even multiple of heads = 3"),
    (["--set", "sasrec.heads=3"], "must be a multiple of heads = 3"),
    (["--set", "datasets.steam.overrides.threads=1"], "'threads' cannot differ between data sets"),
    (["--set", "datasets.steam.overrides.sft.epoch=1"], "did you mean 'epochs'?"),
    (["--set", "method.dpo.epsilon=0.3"], "'epsilon' would have no effect on it (its ε is zero)"),
    (["--set", "method.dpo.semantic_anchor=target"], "'semantic_anchor' would have no effect on it (its sampler is"),
    (["--methods", "popularity", "--set", "method.rosepo.pairs=0"], "method.rosepo.pairs = 0"),
    (["--set", "method.sft.pairs=3"], "only methods with preference training have settings of their own"),
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
    assert not (out / "index.json").exists()


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with store.Lock(tmp_path):
        line = ["run", "--all", "--profile", str(MICRO), "--out", str(tmp_path), "--offline"]
        assert cli.main(line) == 2
    assert "in use by another run" in capsys.readouterr().err


def test_a_record_of_a_newer_schema_is_refused(finished: Path, tmp_path: Path) -> None:
    source = next(finished.glob("records/steam/popularity/*/record.json"))
    target = tmp_path / source.relative_to(finished)
    store.write_json(target, {**json.loads(source.read_text()), "schema": records.SCHEMA + 1})
    store.write_json(tmp_path / "index.json", json.loads((finished / "index.json").read_text()))
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
    assert [path.name for path in out.rglob("*") if path.is_file()] == [".lock"]
