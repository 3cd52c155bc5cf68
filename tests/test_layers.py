"""Imports go in one direction, without a circle."""

from __future__ import annotations

import pytest
from imports import PACKAGE, edges, floors, house, sources

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
SOURCES = sources()
EDGES = edges(SOURCES)


def layer(name: str) -> int:
    """The place of a module's layer; the longest name that it begins with decides."""
    inside = name.removeprefix(f"{PACKAGE}.")
    fitting = [one for one in LAYERS if inside == one or inside.startswith(f"{one}.")]
    assert fitting, f"{name} belongs to no layer of {LAYERS}"
    return LAYERS.index(max(fitting, key=len))


def test_the_graph_is_read() -> None:
    assert len(SOURCES) > 100
    assert (f"{PACKAGE}.engine.ops.loss_op", f"{PACKAGE}.losses.formulas") in EDGES
    assert (f"{PACKAGE}.commands.run", f"{PACKAGE}.runs.runner") in EDGES, "imports inside functions count"


def test_no_import_goes_upwards() -> None:
    assert [f"{name} imports {other}" for name, other in sorted(EDGES) if layer(other) > layer(name)] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert floors(EDGES, set(SOURCES) - {PACKAGE})


def test_a_circle_is_found() -> None:
    with pytest.raises(AssertionError, match="a circle among a, b"):
        floors({("a", "b"), ("b", "a"), ("c", "a")}, {"a", "b", "d"})
    assert house(f"{PACKAGE}.engine.ops.loss_op") == "engine.ops"
