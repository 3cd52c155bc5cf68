"""``plan``: the cells of a run, their state and estimated time."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from rosepo_bench.commands.selection import add_cells, places, selected


def add(verbs: Any) -> argparse.ArgumentParser:
    """The verb and its options."""
    verb: argparse.ArgumentParser = verbs.add_parser("plan", help="the cells of a run, their state and estimated time")
    add_cells(verb)
    verb.add_argument("--json", action="store_true", help="print a JSON list, for schedulers")
    return verb


def run(given: argparse.Namespace) -> int:
    """Prints one row per cell. Nothing is fetched, from the hub of models neither."""
    config = selected(given)
    os.environ["HF_HUB_OFFLINE"] = "1"  # the hub's client reads it on import
    from rosepo_bench.base.failures import stopping
    from rosepo_bench.runs import cost

    with stopping():
        rows = cost.plan_rows(config, places(given, given.out))
    print(json.dumps(rows, indent=1) if given.json else cost.render(rows))
    return 0
