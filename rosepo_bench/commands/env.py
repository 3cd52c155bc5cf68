"""``env``: versions, device, and which implementation is used."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add(verbs: Any) -> argparse.ArgumentParser:
    """The verb."""
    verb: argparse.ArgumentParser = verbs.add_parser("env", help="versions, device, and which implementation is used")
    return verb


def run(given: argparse.Namespace) -> int:
    """Prints the facts as JSON."""
    from rosepo_bench.engine import environment

    print(json.dumps(environment.facts(), indent=1))
    return 0
