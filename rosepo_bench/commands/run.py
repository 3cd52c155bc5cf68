"""``run``: trains and evaluates cells, then prints and writes the tables."""

from __future__ import annotations

import argparse
from typing import Any

from rosepo_bench.base.errors import UserError
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
    """Returns the exit status: 0 if every cell is done, 3 if some failed. UserError: unusable input, or the machine
    cannot go on."""
    config = selected(given)
    from rosepo_bench.base.failures import StoppedError
    from rosepo_bench.runs import runner

    try:
        return runner.run(config, places(given, given.out), force=given.force)
    except StoppedError as error:
        raise UserError(f"{error}; {resuming(given)}") from error


def resuming(given: argparse.Namespace) -> str:
    """How to continue after the run was cut short."""
    return f"the same command{' without --force' if given.force else ''} resumes from here"
