"""The report from records alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rosepo_bench.base import store
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.failures import Failure
from rosepo_bench.base.records import Record
from rosepo_bench.report import captions, diagnostics, differing, provenance, quality
from rosepo_bench.report.comparison import Comparison, comparisons
from rosepo_bench.report.longform import long_form
from rosepo_bench.report.markdown import paragraph
from rosepo_bench.report.plain import visible
from rosepo_bench.report.render import FORMATS, check_formats, markdown
from rosepo_bench.report.result import sound
from rosepo_bench.report.table import Block, Bullets, Heading, Paragraph, Report

LEGEND = paragraph(
    "Each value is followed by its 95 % interval. With one seed it covers the sampling of users; training-seed",
    "variance is not included (Wilson's for HR, else Student's t; paired differences in HR: Bonett and Price's). With",
    "several seeds it covers both (t interval of crossed seed and user effects). p is of no difference (one seed:",
    "McNemar's mid-p for HR, else sign flips; several: the t-test of that model), adjusted by Holm for the rows of the",
    "table. d is Cohen's: the mean difference over its standard deviation over users. HR@k: share of users whose",
    "target is among the first k. NDCG@k: mean over users of 1 / log2(1 + rank of the target), 0 behind the first k. A",
    "table wider than 100 columns is continued below.",
)
LEFT_OUT = "Records that cannot be used are left out:"


def report_of(
    records: Sequence[Record],
    failures: Sequence[Failure] = (),
    problems: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Report:
    """The report. ``failures``: cells that failed or were not run; those with a newer record are left out.
    ``problems``: what is wrong with records that could not be read; ``notes``: what a reader must know of all numbers.

    UserError: nothing to report, or methods with different users.
    """
    good, contradictory = sound(records)
    problems = [*problems, *contradictory]
    parts = comparisons(good, failures)
    if not parts:
        why = "; ".join(problems) or "run `python -m rosepo_bench run --all` first, or give another --out"
        raise UserError(visible(f"no records to report: {why}"))
    blocks: list[Block] = [Heading("Results", 1), Paragraph(LEGEND), *(Paragraph(paragraph(note)) for note in notes)]
    if problems:
        blocks += [Paragraph(LEFT_OUT), Bullets(tuple(problems))]
    blocks += [block for part in parts for block in _section(part)]
    return Report(tuple(blocks), long_form(parts), tuple(provenance.name(record.path) for record in records))


def render(
    records: Sequence[Record],
    failures: Sequence[Failure] = (),
    problems: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> str:
    """The report as Markdown that fits a terminal."""
    return markdown(report_of(records, failures, problems, notes))


def write_report(out: Path, report: Report, formats: Sequence[str] = ("md", "csv")) -> list[Path]:
    """Writes the report below ``out`` in each format, every file atomically; returns their paths. A file there that is
    made from other records is kept beside it."""
    check_formats(formats)
    paths = {name: out / FORMATS[name].file for name in formats}
    for name, path in paths.items():
        content = FORMATS[name].function(report)
        provenance.keep(path, content, FORMATS[name].made_from, report.records)
        store.write_text(path, content)
    return list(paths.values())


def _section(part: Comparison) -> Iterator[Block]:
    """Throughput and diagnostics are of the records, not of the protocol: they are shown once."""
    yield from (Heading(captions.heading(part), 2), Paragraph(captions.caption(part)))
    if found := differing.settings(part):
        yield from (Heading("Settings that differ", 3), found)
    yield from quality.quality(part)
    if part.records:
        yield from (Heading(f"Differences in {part.primary.upper()}", 3), *quality.differences(part))
    if part.records and not part.repeated:
        yield from (Heading("Throughput", 3), diagnostics.throughput(part), Paragraph(diagnostics.THROUGHPUT_CAPTION))
    if (found := diagnostics.watched(part)) and not part.repeated:
        yield from (Heading("Validation during training", 3), found, Paragraph(diagnostics.WATCHED_CAPTION))
    if (found := diagnostics.pairs(part)) and not part.repeated:
        yield from (Heading("Preference pairs", 3), found, Paragraph(diagnostics.PAIRS_CAPTION))
    if (found := diagnostics.preference(part)) and not part.repeated:
        yield from (Heading("Preference training", 3), found, Paragraph(diagnostics.PREFERENCE_CAPTION))
    if (found := diagnostics.oracle(part)) and not part.repeated:
        yield from (Heading("Preference oracle", 3), found, Paragraph(diagnostics.ORACLE_CAPTION))
