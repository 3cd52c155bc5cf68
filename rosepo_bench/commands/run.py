"""``run``: trains and measures cells, then prints and writes the tables."""

from __future__ import annotations

import argparse
from typing import Any

from rosepo_bench.commands.selection import add_cells, places, selected


def add(verbs: Any) -> argparse.ArgumentParser:
    """The verb and its options."""
    verb: argparse.ArgumentParser = verbs.add_parser(
        "run", help="train and measure: data sets x methods x seeds, then the tables"
    )
    add_cells(verb)
    verb.add_argument("--force", action="store_true", help="forget the selected cells and their stages first")
    return verb


def run(given: argparse.Namespace) -> int:
    """Exit status: 0 every cell is done, 3 some failed."""
    config = selected(given)
    from rosepo_bench.runs import runner

    return runner.run(config, places(given, given.out), force=given.force)
