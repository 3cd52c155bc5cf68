"""The report: Markdown tables and a CSV, from records alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rosepo_bench.base import store
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.records import Failure, Record
from rosepo_bench.report import diagnostics, quality
from rosepo_bench.report.comparison import Comparison, comparisons
from rosepo_bench.report.longform import long_form
from rosepo_bench.report.markdown import paragraph

LEGEND = paragraph(
    "Each value is followed by its 95 % interval over users: Wilson's for HR of one seed, otherwise Student's t over",
    "the users' means. Differences are paired by user (HR of one seed: Bonett and Price's interval, otherwise",
    "Student's t). The intervals exclude variance over training seeds, which `sd over seeds` shows, and are not",
    "corrected for multiple comparisons.",
)


def render(records: Sequence[Record], failures: Sequence[Failure] = ()) -> str:
    """The whole report as Markdown that fits a terminal of 160 columns.

    ``failures``: (data set, method, seed, reason) of each cell without a record; with an empty reason it has
    not run. UserError: nothing to report, records that contradict their predictions, methods with different users.
    """
    return _markdown(_comparisons(records, failures))


def write_report(out: Path, records: Sequence[Record], failures: Sequence[Failure] = ()) -> list[Path]:
    """Writes ``report.md`` and ``results.csv`` below ``out``, atomically; returns their paths."""
    parts = _comparisons(records, failures)
    report, results = out / "report.md", out / "results.csv"
    store.write_text(report, _markdown(parts))
    store.write_text(results, long_form(parts))
    return [report, results]


def _comparisons(records: Sequence[Record], failures: Sequence[Failure]) -> list[Comparison]:
    if not records and not failures:
        raise UserError("no records to report; run `python -m rosepo_bench run` first, or give another --out")
    return comparisons(records, failures)


def _markdown(parts: list[Comparison]) -> str:
    return "\n\n".join(["# Results", LEGEND, *map(_one, parts)]) + "\n"


def _one(comparison: Comparison) -> str:
    blocks = [quality.heading(comparison), quality.caption(comparison), "### Quality", quality.quality(comparison)]
    if comparison.records:
        blocks += ["### Differences in HR@1", quality.differences(comparison)]
        blocks += ["### Throughput", diagnostics.throughput(comparison), diagnostics.THROUGHPUT_CAPTION]
    if found := diagnostics.preference(comparison):
        blocks += ["### Preference training", found, diagnostics.PREFERENCE_CAPTION]
    if found := diagnostics.oracle(comparison):
        blocks += ["### Preference oracle", found, diagnostics.ORACLE_CAPTION]
    return "\n\n".join(blocks)
