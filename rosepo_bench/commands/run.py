"""``run``: trains and evaluates cells, then prints and writes the tables."""

from __future__ import annotations

import argparse
from typing import Any

from rosepo_bench.commands.selection import add_cells, places, selected


def add(verbs: Any) -> argparse.ArgumentParser:
    """The verb and its options."""
    verb: argparse.ArgumentParser = verbs.add_parser(
        "run", help="train and evaluate data sets x methods x seeds, then print the tables"
    )
    add_cells(verb)
    verb.add_argument("--force", action="store_true", help="delete the selected cells and their stages first")
    return verb


def run(given: argparse.Namespace) -> int:
    """Returns the exit status: 0 if every cell is done, 3 if some failed."""
    config = selected(given)
    from rosepo_bench.runs import runner

    return runner.run(config, places(given, given.out), force=given.force)
