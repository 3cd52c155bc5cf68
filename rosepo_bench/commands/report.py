"""``report``: tables from the records of an output folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rosepo_bench.base.errors import UserError
from rosepo_bench.commands.selection import add_out

RUN_FIRST = "; run `python -m rosepo_bench run --all` first, or give another --out"


def add(verbs: Any) -> argparse.ArgumentParser:
    """The verb and its options."""
    verb: argparse.ArgumentParser = verbs.add_parser("report", help="tables from records")
    add_out(verb)
    verb.add_argument("--rescore", action="store_true", help="compute all metrics anew from the predictions first")
    verb.add_argument("--format", default="md,csv", metavar="A,B", help="files to write: md, csv; default: both")
    verb.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="also write FILE.csv, or FILE.parquet (needs pyarrow): a row for each cell and user, with the data set's "
        "own ids, which may be personal data; in CSV, ids that a spreadsheet would take for formulas begin with '",
    )
    return verb


def run(given: argparse.Namespace) -> int:
    """Prints and writes the tables."""
    from rosepo_bench.base import progress, records
    from rosepo_bench.base.failures import read_failures
    from rosepo_bench.report import joined, predictions_file, rescore, tables
    from rosepo_bench.report.comparison import comparisons
    from rosepo_bench.report.plain import visible
    from rosepo_bench.report.render import check_formats, markdown
    from rosepo_bench.report.result import sound

    formats = [name for name in given.format.split(",") if name]
    check_formats(formats)
    if given.predictions:
        predictions_file.check(given.predictions)
    found, problems = records.read_records(given.out)
    failures = read_failures(given.out)
    if not found and not failures:
        why = ": " + "; ".join(problems) if problems else ""
        raise UserError(visible(f"{given.out}: no records there that can be used{why or RUN_FIRST}"))
    if given.rescore:
        found = [rescore.rescored(record) for record in found]
    notes = [rescore.NOTE] if given.rescore else []
    report = tables.report_of(found, failures, problems, notes)
    print(markdown(report))
    with progress.shown():
        for path in tables.write_report(given.out, report, formats):
            progress.say(f"written: {visible(str(path))}")
        if given.predictions:
            rows = predictions_file.write(given.predictions, joined.cells(comparisons(sound(found)[0]), given.out))
            progress.say(f"written: {visible(str(given.predictions))} ({rows:,} rows)")
    return 0
