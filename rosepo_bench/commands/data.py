"""``data``: fetches or describes a data set."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosepo_bench.base.errors import UserError, nearest, of_dataset, shown
from rosepo_bench.commands import audit
from rosepo_bench.commands.selection import add_profile, places, table_of

if TYPE_CHECKING:
    from rosepo_bench.base.config import DatasetConfig


def add(verbs: Any) -> argparse.ArgumentParser:
    """The verb, its two actions and their options."""
    verb: argparse.ArgumentParser = verbs.add_parser("data", help="fetch or describe a data set")
    actions = verb.add_subparsers(dest="action", required=True, metavar="ACTION")
    for action, text in (
        ("fetch", "fetch and verify the files"),
        ("describe", "facts about the prepared data set"),
    ):
        sub = actions.add_parser(action, help=text)
        sub.add_argument("name", help="a data set of the profile, or a name of `ls datasets`")
        add_profile(sub)
    audit.add(actions).set_defaults(command=audit, settings_of=_dataset)
    return verb


def run(given: argparse.Namespace) -> int:
    """Prints what was fetched, or the facts."""
    dataset = _dataset(given)
    from rosepo_bench.base import progress
    from rosepo_bench.data import catalog, describe, sequences
    from rosepo_bench.runs.plan import resolved as resolve

    with progress.shown():
        resolved = resolve(given.name, dataset, places(given, Path()))
        if given.action == "fetch":
            print(f"{given.name}: {resolved.kind}")
            print(f"  terms: {resolved.spec.terms}")
            for file in resolved.files:
                print(f"  {file.name}  {file.bytes} bytes  sha256 {file.sha256}")
            return 0
        with of_dataset(given.name):
            prepared = replace(catalog.load(resolved, dataset), label=given.name)
        print(describe.render(prepared, sequences.split(prepared, dataset.split), dataset.candidates))
    return 0


def _dataset(given: argparse.Namespace) -> DatasetConfig:
    """The settings of the data set of that name in the profile; else those of the data source, which the profile need
    not use."""
    from rosepo_bench.base.config import RunConfig
    from rosepo_bench.base.configure import validate
    from rosepo_bench.data.sources import SOURCES

    sources = {given.name: {"source": given.name}} if given.name in SOURCES else {}
    config = validate(table_of(given, **sources), RunConfig)
    if given.name not in config.datasets:
        raise UserError(f"unknown data set {shown(given.name)}; {nearest(given.name, {*config.datasets, *SOURCES})}")
    return config.datasets[given.name]
