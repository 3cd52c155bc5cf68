"""Mutations as data: what mutants.toml holds, applied to the present sources."""

from __future__ import annotations

import ast
import difflib
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PLAN = Path(__file__).with_name("mutants.toml")
SOURCES = ("rosepo_bench", "baselines")


class PlanError(ValueError):
    """The plan does not fit the sources: which entry, what is wrong, what to do."""


@dataclass(frozen=True)
class Mutant:
    """One change of one file: ``source`` is the whole file with it. ``breaks`` says which wire is crossed, ``tests``
    (paths or node ids) are those that should see it."""

    name: str
    file: str
    breaks: str
    tests: tuple[str, ...]
    source: str = field(repr=False)
    drawn: bool = False


@dataclass(frozen=True)
class Plan:
    """What mutants.toml says. ``tests`` by file or folder of the package; ``stored`` are tests that compare with stored
    outputs, which never run here; ``equivalent``: drawn mutants that change nothing, with the reason."""

    timeout: float
    stored: tuple[str, ...]
    tests: dict[str, list[str]]
    seed: int
    number: int
    equivalent: dict[str, str]
    entries: list[dict[str, Any]]

    def tests_of(self, file: str) -> tuple[str, ...]:
        """The tests of the longest path in ``tests`` that ``file`` is or lies in. PlanError: there is none."""
        fitting = [path for path in self.tests if file == path or file.startswith(f"{path}/")]
        if not fitting:
            raise PlanError(f"{file}: no tests; name them in [tests], for the file or a folder above it")
        return tuple(self.tests[max(fitting, key=len)])


def read(path: Path = PLAN) -> Plan:
    """The plan. PlanError: a key is missing."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    try:
        drawn = table["drawn"]
        return Plan(
            timeout=float(table["timeout"]),
            stored=tuple(table["stored"]),
            tests=table["tests"],
            seed=drawn["seed"],
            number=drawn["number"],
            equivalent=drawn.get("equivalent", {}),
            entries=table["mutant"],
        )
    except KeyError as error:
        raise PlanError(f"{path}: no key {error}") from error


def by_hand(plan: Plan, root: Path = ROOT) -> list[Mutant]:
    """The hand-written mutants in the file's order. PlanError: a name twice, or an entry that does not apply."""
    names = [entry["name"] for entry in plan.entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PlanError(f"names given twice: {', '.join(twice)}")
    return [_mutant(entry, plan, root) for entry in plan.entries]


def _mutant(entry: dict[str, Any], plan: Plan, root: Path) -> Mutant:
    name, file = entry["name"], entry["file"]
    text = (root / file).read_text(encoding="utf-8") if (root / file).is_file() else ""
    if text.count(entry["old"]) != 1:
        raise PlanError(f"mutant {name!r}: {_stale(entry, text, root)}")
    source = text.replace(entry["old"], entry["new"])
    try:
        changed = ast.dump(ast.parse(source)) != ast.dump(ast.parse(text))
    except SyntaxError as error:
        raise PlanError(f"mutant {name!r}: {file} does not parse with it: {error}") from error
    if not changed:
        raise PlanError(f"mutant {name!r}: `new` is the same program as `old`")
    return Mutant(name, file, entry["breaks"], tuple(entry.get("tests", ())) or plan.tests_of(file), source)


def _stale(entry: dict[str, Any], text: str, root: Path) -> str:
    """Why ``old`` cannot be replaced, and where it may have gone."""
    old, file = entry["old"], entry["file"]
    if number := text.count(old):
        lines = [str(at) for at, line in enumerate(text.splitlines(), 1) if old.splitlines()[0] in line]
        return f"`old` occurs {number} times in {file} (lines {', '.join(lines)}); make it longer"
    paths = (path for folder in SOURCES for path in sorted((root / folder).rglob("*.py")))
    holding = [path.relative_to(root).as_posix() for path in paths if old in path.read_text(encoding="utf-8")]
    if holding:
        return f"`old` is not in {file} but in {', '.join(holding)}; change `file`"
    if not text:
        return f"there is no file {file}, and no other holds `old` ({old!r})"
    lines = [line.strip() for line in text.splitlines()]
    (near,) = difflib.get_close_matches(old.splitlines()[0].strip(), lines, n=1, cutoff=0.0)
    return f"`old` ({old!r}) is not in {file}; the nearest is line {lines.index(near) + 1}: {near}"
