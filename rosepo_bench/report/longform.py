"""Every number of the report in one table in long format, one value per row, for plots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rosepo_bench.report import provenance
from rosepo_bench.report.comparison import Comparison
from rosepo_bench.report.quality import BASELINES, measured, minus
from rosepo_bench.report.result import Result
from rosepo_bench.report.table import Cell, Column, Table

NAMES = ("dataset", "section", "kind", "profile", "protocol", "method", "seed", "metric")
SOURCES = ("record", "processor", "torch")
ENDS = ("value", "low", "high", "n")


def long_form(comparisons: list[Comparison]) -> Table:
    """A value a row. ``section`` is the heading in the report: the data set's name, and what tells apart the parts that
    cannot be compared. ``seed`` is that of a record, or ``all`` for values over all seeds. ``record`` is the folder of
    the only record that a value is from; ``processor`` and ``torch`` are those of all its records."""
    rows: list[tuple[Cell, ...]] = []
    for comparison in comparisons:
        results = {result.record.path: result for result in comparison.records}
        for name, members in comparison.methods.items():
            first = members[0]
            place = (
                comparison.dataset,
                comparison.title,
                first["data"]["kind"],
                first["profile"],
                first.protocol,
                name,
            )
            values = [(str(result.seed), *value) for result in members for value in _values(result)]
            values += [("all", *value) for value in _overall(comparison, name)]
            for seed, metric, value in values:
                sources = _sources([results[path] for path in value.records])
                rows.append((*map(Cell, (*place, seed, metric)), value, *map(Cell, sources)))
    columns = (*_texts(NAMES), Column("value", ends=True), *_texts(SOURCES))
    return Table(columns, tuple(rows))


def _texts(names: Iterable[str]) -> list[Column]:
    return [Column(name, left=True) for name in names]


def _sources(results: list[Result]) -> tuple[str, str, str]:
    record = provenance.name(results[0].record.path) if len(results) == 1 else ""
    processors, versions = ({getattr(one, name) for one in results} - {""} for name in ("processor", "torch"))
    return record, "; ".join(sorted(processors)), "; ".join(sorted(versions))


def _values(result: Result) -> Iterator[tuple[str, Cell]]:
    """A record's own numbers by name."""
    sources: dict[str, Any] = {"seeds": (result.seed,), "records": (result.record.path,)}
    for metric, value in result.shown.items():
        yield metric, Cell.of(value, **sources)
    parts = (_throughput(result), _training(result), _preference(result), _oracle(result))
    for name, value in (found for part in parts for found in part):
        yield name, Cell.of(value if isinstance(value, dict) else {"value": value}, **sources)


def _throughput(result: Result) -> Iterator[tuple[str, Any]]:
    for name, value in result["throughput"].items():
        if name == "seconds":
            yield from ((f"seconds_{stage}", seconds) for stage, seconds in value.items())
        elif isinstance(value, int | float):
            yield name, value


def _training(result: Result) -> Iterator[tuple[str, Any]]:
    training = result["training"] or {}
    if training.get("validation"):
        yield "validation_last", training["validation"][-1][1]
    if training.get("best_step") is not None:
        yield "best_step", training["best_step"]


def _preference(result: Result) -> Iterator[tuple[str, Any]]:
    if found := result.diagnostics("preference"):
        yield "pairs_seen", found["pairs_seen"]
        if found["beta"] is not None:
            yield "beta", found["beta"]
        for name in ("epsilon", "validation_epsilon"):
            if found[name]:
                yield from ((f"{name}_{part}", found[name][part]) for part in ("mean", "sd"))
        for name in ("margin", "margin_accuracy"):
            yield from ((f"{name}_{when}", told) for when, told in found.get(name, {}).items() if told)
        yield "changed_top", {"value": found["changed_top"]["share"], "n": found["changed_top"]["n"]}


def _oracle(result: Result) -> Iterator[tuple[str, Any]]:
    if found := result.diagnostics("oracle"):
        yield "oracle_accuracy", found["accuracy"]
        for name in ("epsilon_gap", "epsilon_gap_without_folds"):
            yield f"oracle_{name}", found[name]
            yield f"oracle_{name}_uniform", found["uniform"][name]
        yield "oracle_tau_uniform", found["uniform"]["tau"]
        for kind, fit in found["temperatures"].items():
            yield f"oracle_tau_{kind}", fit["tau"]
            yield f"oracle_accuracy_{kind}", {end: fit["accuracy" if end == "value" else end] for end in ENDS}


def _overall(comparison: Comparison, name: str) -> Iterator[tuple[str, Cell]]:
    """A row's numbers over all its seeds, and its differences to the baselines."""
    for metric in comparison.metrics:
        cells = {metric: measured(comparison, name, metric)}
        cells |= {f"{metric}_minus_{base}": minus(comparison, name, base, metric) for base in BASELINES}
        yield from ((label, cell) for label, cell in cells.items() if cell.value is not None)
