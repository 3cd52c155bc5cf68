"""``bench``: the engine against its peers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rosepo_bench.base.errors import UserError
from rosepo_bench.commands.selection import add_out


def add(verbs: Any) -> argparse.ArgumentParser:
    """The verb and its options."""
    verb: argparse.ArgumentParser = verbs.add_parser(
        "bench", help="the engine against its peers: equal numbers, then time and memory"
    )
    verb.add_argument("--quick", action="store_true", help="a few cases, within four minutes on two cores")
    verb.add_argument("--json", type=Path, metavar="FILE", help="write the rows that state the goals as a JSON list")
    verb.add_argument(
        "--table", type=Path, metavar="CSV", help="do not measure: print the table of goals from a bench.csv"
    )
    verb.add_argument(
        "--into", type=Path, metavar="FILE", help="with --table: write the table between the marks in FILE"
    )
    verb.add_argument(
        "--busy",
        action="store_true",
        help="a training step alone and beside busy processes of its own; one to two minutes",
    )
    add_out(verb, "results/runs/bench")
    return verb


def run(given: argparse.Namespace) -> int:
    """Measures, or shows an earlier measurement."""
    from rosepo_bench.bench import verb

    if given.busy:
        if given.quick or any(one is not None for one in (given.json, given.table, given.into)):
            raise UserError("--busy measures one step and writes busy.csv: give it with --out alone")
        return verb.beside_load(out=given.out)
    if given.table is not None:
        if given.quick or given.json is not None:
            raise UserError("--table measures nothing: give it without --quick and --json")
        return verb.show(given.table, given.into)
    if given.into is not None:
        raise UserError("--into writes the table of --table: give --table too")
    return verb.bench(fast=given.quick, target=given.json, out=given.out)
