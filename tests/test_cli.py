"""The command line itself: what it lists, and that it answers at once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rosepo_bench import cli
from rosepo_bench.engine import forest
from rosepo_bench.engine.forest import trees
from rosepo_bench.engine.ops import library

HEAVY = {"torch", "transformers", "numpy", "scipy", "pydantic", "rich", "tokenizers", "peft"}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom rosepo_bench.cli import main\n"
        "try:\n    main(['run', '--help'])\nexcept SystemExit:\n    pass\n"
        "print('modules:', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.rpartition("modules:")[2].split()}
    assert "rosepo_bench" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("datasets", ["ml-100k", "ml-32m", "steam", "goodreads", "atomic"]),
        ("methods", ["popularity", "sasrec", "zero_shot", "sft", "dpo", "cdpo", "rosepo", "rosepo-robust"]),
        ("losses", ["dpo", "cdpo", "rosepo", "robust"]),
        ("samplers", ["uniform", "mixed", "self_hard", "semantic", "popularity"]),
        ("smoothings", ["zero", "constant", "predicted"]),
        ("oracles", ["sasrec", "popularity"]),
        ("protocols", ["candidates-sum", "candidates-mean"]),
        ("settings", ["protocols", "method.NAME.rejected", "losses.dpo.beta", "samplers.semantic.temperature"]),
        ("metrics", ["hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10"]),
        ("profiles", ["demo"]),
    ],
)
def test_ls(what: str, expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ls", what]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert set(expected) <= listed


def test_env_names_the_live_library(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["env"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["library"]["state"] == "loaded"
    assert facts["library"]["build_id"]
    assert facts["packages"]["torch"]
    assert facts["forest"] == {"state": "loaded", "build_id": forest.build_id()}


def test_env_says_what_to_do_about_a_forest_module_that_is_stale_or_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown() -> Any:
        forest.native.cache_clear()
        assert cli.main(["env"]) == 0
        return json.loads(capsys.readouterr().out)["forest"]

    library.load()  # the operators' own state is another test's
    (tmp_path / "forest.h").touch()
    monkeypatch.setattr(library, "checkout", lambda: tmp_path)
    stale = shown()
    assert re.search(r"was built from other sources .*: run `make build`", stale["state"])
    monkeypatch.setattr(trees, "MODULE", tmp_path / "_forest.so")
    missing = shown()
    assert re.search(r"_forest\.so is not there\): run `make build`", missing["state"])
    assert stale["build_id"] is missing["build_id"] is None
    forest.native.cache_clear()


def test_data_describe_compares_a_replica_with_the_facts(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "describe", "steam", "--set", "datasets.steam.synthetic=always"]) == 0
    shown = capsys.readouterr().out
    assert "synthetic" in shown
    assert "Gini" in shown


def test_data_describe_refuses_unknown_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "describe", "movielense"]) == 2
    assert "unknown data set" in capsys.readouterr().err


def test_nothing_selected_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run"]) == 2
    assert "give --all" in capsys.readouterr().err


def test_a_file_in_the_way_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert cli.main(["run", "--all", "--offline", "--out", str(tmp_path / "file")]) == 2
    assert "a file stands where a folder is needed" in capsys.readouterr().err


def test_a_foreign_failure_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "failures").mkdir()
    (tmp_path / "failures" / "steam-sft-seed0.json").write_text('{"a": {"b": 1}}')
    assert cli.main(["report", "--out", str(tmp_path)]) == 2
    assert "steam-sft-seed0.json: not a note of a failed cell; delete it" in capsys.readouterr().err


def test_a_folder_without_records_is_refused(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", "--out", str(tmp_path)]) == 2
    assert "no records" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["run", "--all"], "interrupted; the same command resumes from here\n"),
        (["run", "--all", "--force"], "interrupted; the same command without --force resumes from here\n"),
        (["plan", "--all"], "interrupted\n"),
        (["data", "fetch", "steam"], "interrupted\n"),
    ],
)
def test_only_a_run_goes_on_from_where_it_was_interrupted(
    line: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    for command in cli.COMMANDS:
        monkeypatch.setattr(command, "run", interrupt)
    assert cli.main(line) == 130
    assert capsys.readouterr().err == said
