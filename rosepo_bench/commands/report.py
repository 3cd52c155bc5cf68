"""``report``: tables from the records of an output folder."""

from __future__ import annotations

import argparse
from typing import Any

from rosepo_bench.base.errors import UserError
from rosepo_bench.commands.selection import add_out


def add(verbs: Any) -> argparse.ArgumentParser:
    """The verb and its options."""
    verb: argparse.ArgumentParser = verbs.add_parser("report", help="tables from records")
    add_out(verb)
    return verb


def run(given: argparse.Namespace) -> int:
    """Prints and writes the tables."""
    from rosepo_bench.report import tables
    from rosepo_bench.runs.index import Index

    found = Index.read(given.out).everything()
    if not any(found):
        raise UserError(f"{given.out}: no records there; run `python -m rosepo_bench run` first, or give another --out")
    print(tables.render(*found))
    for path in tables.write_report(given.out, *found):
        print(f"written: {path}")
    return 0
