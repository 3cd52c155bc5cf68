"""What an edit of the code reaches: a copy of the package is edited, and the keys of its stages are computed anew."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import by_hand
import pytest
from running import MICRO

from rosepo_bench.base import closure
from rosepo_bench.pipeline import stages

ROOT = Path(__file__).resolve().parents[2]
METHODS = ("dpo", "rosepo-popularity", "rosepo-semantic", "rosepo-self-hard", "sasrec")
SCRIPT = """
import json, sys
from pathlib import Path
import rosepo_bench
from rosepo_bench.base.config import RunConfig
from rosepo_bench.base.configure import read_profile, validate
from rosepo_bench.runs.plan import Places, cells, closure
table = {**read_profile(sys.argv[1]), "methods": sys.argv[3].split(",")}
out = Path(sys.argv[2])
planned = cells(validate(table, RunConfig), Places(out, None, out, offline=True))
print(json.dumps({stage.name: stage.key for cell in planned for stage in closure(cell)}))
"""


class Copy:
    """The package once more, to be edited."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        unwanted = shutil.ignore_patterns("__pycache__", "baselines")
        shutil.copytree(ROOT / "rosepo_bench", folder / "rosepo_bench", ignore=unwanted)
        shutil.copytree(ROOT / "baselines", folder / "rosepo_bench" / "baselines")

    def keys(self) -> dict[str, str]:
        """The key of every stage that the methods need, by name."""
        line = [sys.executable, "-c", SCRIPT, str(MICRO), str(self.folder / "out"), ",".join(METHODS)]
        env = {**os.environ, "PYTHONPATH": str(self.folder), "ROSEPO_CHECKOUT": "0"}
        done = subprocess.run(line, capture_output=True, text=True, env=env, cwd=self.folder, check=False)
        assert done.returncode == 0, done.stderr
        found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        return found

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / "rosepo_bench" / file
        text = path.read_text()
        assert text.count(old) >= 1, f"{file}: {old!r} is not there any more"
        path.write_text(text.replace(old, new, 1))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Copy, dict[str, str]]:
    copy = Copy(tmp_path_factory.mktemp("copy"))
    return copy, copy.keys()


@pytest.fixture
def edited(original: tuple[Copy, dict[str, str]]) -> Iterator[tuple[Copy, dict[str, str]]]:
    """The copy, whose files are put back afterwards."""
    copy, before = original
    yield copy, before
    shutil.rmtree(copy.folder / "rosepo_bench")
    Copy.__init__(copy, copy.folder)


def moved(before: dict[str, str], after: dict[str, str]) -> set[str]:
    assert before.keys() == after.keys()
    return {name.removeprefix("steam.") for name in before if before[name] != after[name]}


def test_a_comment_or_a_docstring_in_any_module_changes_no_key(edited: tuple[Copy, dict[str, str]]) -> None:
    copy, before = edited
    for path in sorted((copy.folder / "rosepo_bench").rglob("*.py")):
        text = path.read_text()
        path.write_text(text.replace('"""', '"""Said in other words. ', 1) + "\n# a comment\n")
    assert moved(before, copy.keys()) == set()


OF_POPULARITY = {
    f"{stage}popularity"
    for stage in ("rejected.", "logps.reference.", "judged.", "epsilon.predicted.", "rosepo-", "logps.rosepo-")
} | {"candidates-sum.rosepo-popularity"}


def test_an_edit_of_a_sampler_changes_its_stages_and_what_follows_alone(edited: tuple[Copy, dict[str, str]]) -> None:
    copy, before = edited
    copy.edit("preference/samplers/popularity.py", "np.log(", "1.0 * np.log(")
    assert moved(before, copy.keys()) == OF_POPULARITY


def test_an_edit_of_what_samplers_import_reaches_those_that_draw_by_it(edited: tuple[Copy, dict[str, str]]) -> None:
    copy, before = edited
    copy.edit("preference/samplers/law.py", "def by_law(", "UNUSED = 1\n\n\ndef by_law(")
    found = moved(before, copy.keys())
    assert found >= OF_POPULARITY | {"rejected.uniform", "rejected.semantic", "dpo"}
    assert not found & {"data", "test", "validation", "tokenizer", "sft", "mining", "fit.sasrec", "crossfit.sasrec"}


def test_an_edit_of_an_oracle_reaches_its_fits_and_no_pair(edited: tuple[Copy, dict[str, str]]) -> None:
    copy, before = edited
    copy.edit("recommenders/sasrec.py", "SCORING_TOKENS = 16384", "SCORING_TOKENS = 8192")
    found = moved(before, copy.keys())
    assert found >= {"fit.sasrec", "crossfit.sasrec", "probe", "judged.popularity", "candidates-sum.sasrec"}
    assert not found & {
        "data",
        "test",
        "sft",
        "mining",
        "rejected.uniform",
        "rejected.popularity",
        "logps.reference.uniform",
    }


def test_an_edit_of_the_report_changes_no_key(edited: tuple[Copy, dict[str, str]]) -> None:
    copy, before = edited
    copy.edit("report/quality.py", "NO_EFFECT = 0.01", "NO_EFFECT = 0.02")
    copy.edit("commands/ls.py", "WIDTH = 100", "WIDTH = 99")
    path = copy.folder / "rosepo_bench" / "base" / "progress.py"
    path.write_text(path.read_text() + "\nUNUSED = 1\n")
    assert moved(before, copy.keys()) == set()


def test_what_is_executed_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file of the package that runs while a stage is computed is in the closure of its code, or decides alone
    whether and when it is computed."""
    package = str(ROOT / "rosepo_bench")
    running: list[stages.Stage[Any]] = []
    lacking: set[tuple[str, str]] = set()
    checked = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and running and file.startswith(package) and file not in allowed:
            lacking.add((running[-1].name, file.removeprefix(package)))

    allowed: set[str] = set()
    compute = stages.Stages._compute

    def watched(self: stages.Stages, stage: stages.Stage[Any]) -> None:
        nonlocal allowed, checked
        before = allowed
        below = _with_parents(stage)
        allowed = {str(path) for one in below for path in closure.files(one.modules).values()} | infrastructure
        running.append(stage)
        checked += 1
        sys.setprofile(note)
        threading.setprofile(note)
        try:
            compute(self, stage)
        finally:
            sys.setprofile(note if len(running) > 1 else None)
            threading.setprofile(None)
            running.pop()
            allowed = before

    infrastructure = {str(ROOT / (name.replace(".", "/") + ".py")) for name in closure.INFRASTRUCTURE}
    monkeypatch.setattr(stages.Stages, "_compute", watched)
    for method in ("popularity", "sasrec", "sft-longer", "rosepo"):
        cell = by_hand.cell(tmp_path, method, "preference.pairs=40", "sft.epochs=0.3", "sft.evaluations=1")
        for stage in cell.stages:
            cell.task.stages.get(stage)
    assert checked > 20
    assert lacking == set()


def _with_parents(stage: stages.Stage[Any]) -> list[stages.Stage[Any]]:
    """A stage and its ancestors: results of these may be read, and code that reads them runs, meanwhile."""
    return [stage, *(one for parent in stage.parents for one in _with_parents(parent))]
