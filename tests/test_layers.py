"""Imports go in one direction. Read from the sources: imports inside functions and for types count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "rosepo_bench"
COMPILED = "_forest"  # a module without Python source

# From the ground up. A module imports from its own layer and those before it.
LAYERS = (
    "base",
    "losses",
    "data",
    "engine.ops",
    "engine.forest",
    "engine.prompts",
    "engine.model",
    "engine.training",
    "engine.ranking",
    "engine",
    "recommenders",
    "preference",
    "evaluation",
    "report",
    "pipeline",
    "runs",
    "api",
    "baselines",
    "bench",
    "commands",
    "cli",
    "__main__",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = (PACKAGE, *parts) if parts[0] == "baselines" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): path
    for path in sorted([*(ROOT / PACKAGE).rglob("*.py"), *(ROOT / "baselines").glob("*.py")])
    if "baselines" not in path.relative_to(ROOT).parts[1:]
}


def imported(name: str) -> Iterator[str]:
    """The package's modules that a module imports, wherever the import stands in it."""
    for node in ast.walk(ast.parse(SOURCES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in SOURCES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if alias.name != COMPILED:
                    yield inner if inner in SOURCES else node.module


def layer(name: str) -> int:
    """The place of a module's layer; the longest name that it begins with decides."""
    inside = name.removeprefix(f"{PACKAGE}.")
    fitting = [one for one in LAYERS if inside == one or inside.startswith(f"{one}.")]
    assert fitting, f"{name} belongs to no layer of {LAYERS}"
    return LAYERS.index(max(fitting, key=len))


EDGES = {
    (name, other) for name in SOURCES if name != PACKAGE for other in imported(name) if other not in (PACKAGE, name)
}


def test_the_graph_is_read() -> None:
    assert len(SOURCES) > 100
    assert (f"{PACKAGE}.engine.ops.loss_op", f"{PACKAGE}.losses.formulas") in EDGES
    assert (f"{PACKAGE}.commands.run", f"{PACKAGE}.runs.runner") in EDGES, "imports inside functions count"


def test_no_import_goes_upwards() -> None:
    assert [f"{name} imports {other}" for name, other in sorted(EDGES) if layer(other) > layer(name)] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    below: dict[str, set[str]] = {name: {other for one, other in EDGES if one == name} for name in SOURCES}
    while below:
        free = [name for name, others in below.items() if not others & below.keys()]
        if not free:
            pytest.fail(f"a circle among {', '.join(sorted(below))}")
        for name in free:
            del below[name]
