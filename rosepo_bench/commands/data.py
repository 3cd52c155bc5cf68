"""``data``: fetches or describes a data set."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosepo_bench.base.errors import UserError, nearest
from rosepo_bench.commands import audit
from rosepo_bench.commands.selection import add_profile, configuration, places

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
    audit.add(actions).set_defaults(command=audit, source_of=_source)
    return verb


def run(given: argparse.Namespace) -> int:
    """Prints what was fetched, or the facts."""
    from rosepo_bench.base import progress
    from rosepo_bench.data import catalog, describe, sequences

    config = configuration(given)
    dataset = config.datasets.get(given.name) or _source(given.name)
    where = places(given, Path())
    with progress.shown():
        resolved = catalog.resolve(dataset.source, dataset, where.data, where.cache, where.offline)
        if given.action == "fetch":
            print(f"{given.name}: {resolved.kind}")
            print(f"  terms: {resolved.spec.terms}")
            for file in resolved.files:
                print(f"  {file.name}  {file.bytes} bytes  sha256 {file.sha256}")
            return 0
        prepared = replace(catalog.load(resolved, dataset), label=given.name)
        print(describe.render(prepared, sequences.split(prepared, dataset.split), dataset.candidates))
    return 0


def _source(name: str) -> DatasetConfig:
    """The default settings of a data source that no data set of the profile uses."""
    from rosepo_bench.base.config import DatasetConfig
    from rosepo_bench.data.sources import SOURCES

    if name not in SOURCES:
        raise UserError(f"unknown data set {name!r}; {nearest(name, SOURCES)}")
    return DatasetConfig(source=name)
