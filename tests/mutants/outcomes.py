"""Runs mutants on a copy of the tree, one at a time, and tells which tests notice."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from entries import ROOT, Mutant, PlanError

COPIED = ("rosepo_bench", "baselines", "csrc", "tests", "pyproject.toml", "setup.py")
NOT_COPIED = shutil.ignore_patterns("__pycache__", "baselines")
IMPORTED = "import rosepo_bench.baselines, rosepo_bench.engine.forest._forest, rosepo_bench.engine.ops.library"
WHERE = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
Result = Literal["killed", "survived", "not valid", "timed out"]


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant; ``by`` is the test that killed it."""

    mutant: Mutant
    result: Result
    by: str
    seconds: float


class Copy:
    """A copy of the tree in ``folder`` where tests run, each in a session of its own that ends with it."""

    def __init__(self, folder: Path, stored: Sequence[str]) -> None:
        self.tree, self.temporary = folder / "tree", folder / "temporary"
        self.deselected = [f"--deselect={test}" for test in stored]
        self.tree.mkdir()
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, self.tree / name, ignore=NOT_COPIED if name == "rosepo_bench" else None)
            else:
                shutil.copy2(source, self.tree / name)
        # Where the package is installed as a link, its finder would take this subpackage from the original tree.
        (self.tree / "rosepo_bench" / "baselines").symlink_to("../baselines")
        # No .pyc: two mutants of a file may have its size and second in common.
        own = {"PYTHONPATH": str(self.tree), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "400"}
        self.environment = {**os.environ, **own}
        if (real := ROOT.parent / "shared" / "data").is_dir():  # where tests/conftest.py looks for it
            self.environment.setdefault("ROSEPO_SHARED_DATA", str(real))
        self._check()

    def _check(self) -> None:
        """PlanError: a test's subprocess would import something from outside the copy."""
        places = f"{IMPORTED}; from rosepo_bench.engine import ops, forest; print(*(m.__file__ for m in ("
        places += "rosepo_bench, rosepo_bench.baselines, forest._forest, ops)), sep='\\n')"
        code, text = self.python(60, "-c", WHERE, places)
        found = text.splitlines()
        if code or not found or not all(Path(line).is_relative_to(self.tree) for line in found):
            raise PlanError(f"a subprocess of the copy {self.tree} imports from elsewhere:\n{text}")

    def python(self, timeout: float, *arguments: str) -> tuple[int | None, str]:
        """Exit status and output of Python within the copy; None where it was stopped after ``timeout`` seconds."""
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.tree,
            env=self.environment,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            text = process.communicate(timeout=timeout)[0]
            return process.returncode, text
        except subprocess.TimeoutExpired:
            return None, ""
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()

    def pytest(self, tests: Sequence[str], timeout: float) -> tuple[int | None, str]:
        """Exit status and output of the tests, without those that compare with stored outputs."""
        options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=short", "-rfE", "--hypothesis-seed=0"]
        try:
            return self.python(
                timeout, "-m", "pytest", *options, f"--basetemp={self.temporary}", *self.deselected, *tests
            )
        finally:
            shutil.rmtree(self.temporary, ignore_errors=True)

    def passes(self, tests: Sequence[str]) -> None:
        """PlanError: a test fails, or none is found, without any mutant."""
        code, text = self.pytest(tests, 1800)
        if code:
            raise PlanError(f"the tests do not pass as they are; mend them first:\n{text[-3000:]}")
        if code is None:
            raise PlanError(f"the tests take over half an hour as they are: {', '.join(tests)}")

    @contextmanager
    def changed(self, mutant: Mutant) -> Iterator[None]:
        path = self.tree / mutant.file
        before = path.read_bytes()
        path.write_text(mutant.source, encoding="utf-8")
        try:
            yield
        finally:
            path.write_bytes(before)

    def outcome(self, mutant: Mutant, timeout: float) -> Outcome:
        """What the mutant's tests say of it. A file that no longer imports is not valid, whatever fails."""
        began = time.monotonic()
        with self.changed(mutant):
            code, text = self.pytest(mutant.tests, timeout)
            imports = code == 0 or self.python(60, "-c", f"import {_module(mutant.file)}")[0] == 0
        failed = re.search(r"^(?:FAILED|ERROR) (\S+?::.+?)(?: - .*)?$", text, re.MULTILINE)
        known: dict[int | None, Result] = {None: "timed out", 0: "survived", 1: "killed"}
        result = known.get(code, "not valid") if imports else "not valid"
        by = failed[1] if failed and result == "killed" else ""
        return Outcome(mutant, result, by, time.monotonic() - began)


def _module(file: str) -> str:
    """``rosepo_bench/data/types.py`` as Python names it."""
    name = file.removesuffix(".py").replace("/", ".")
    return name if name.startswith("rosepo_bench") else f"rosepo_bench.{name}"


@contextmanager
def copied(stored: Sequence[str]) -> Iterator[Copy]:
    """A copy of the tree that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        yield Copy(Path(folder), stored)
