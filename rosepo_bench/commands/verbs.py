"""What the verbs of the command line do."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rosepo_bench.base.config import DatasetConfig, RunConfig
from rosepo_bench.base.configure import parse_setting, profile_names, read_profile, set_key, settings, validate
from rosepo_bench.base.errors import UserError, nearest


def run_verb(given: argparse.Namespace) -> int:
    """The exit status of the verb that was given."""
    verbs: dict[str, Callable[[argparse.Namespace], int]] = {
        "run": _run,
        "plan": _plan,
        "ls": _ls,
        "data": _data,
        "report": _report,
        "bench": _bench,
        "env": _env,
    }
    return verbs[given.verb](given)


def configuration(given: argparse.Namespace) -> RunConfig:
    """Profile, then ``--set``, then the selection; all of it is judged before anything is left out."""
    table = read_profile(given.profile)
    for setting in given.set:
        set_key(table, *parse_setting(setting))
    whole = validate(table, RunConfig)
    changes: dict[str, Any] = {}
    if getattr(given, "seeds", None) is not None:
        changes["seeds"] = given.seeds
    if getattr(given, "methods", None) is not None:
        changes["methods"] = _names(given.methods, "--methods")
    if getattr(given, "datasets", None) is not None:
        names = _names(given.datasets, "--datasets")
        for name in names:
            if name not in whole.datasets:
                raise UserError(f"profile {given.profile} has no data set {name!r}; {nearest(name, whole.datasets)}")
        changes["datasets"] = {name: table["datasets"][name] for name in names}
    return validate({**table, **changes}, RunConfig)


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UserError(f"{option}: no name given")
    return names


def _places(given: argparse.Namespace, out: Path) -> Any:
    from rosepo_bench.runs.plan import Places

    if given.data_dir is not None and not given.data_dir.is_dir():
        raise UserError(f"--data-dir {given.data_dir}: no such folder")
    return Places(out, given.data_dir, given.cache_dir or _default_cache(), given.offline)


def _default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rosepo_bench"


def _selected(given: argparse.Namespace) -> RunConfig:
    if not given.all and given.datasets is None and given.methods is None:
        raise UserError("nothing selected: give --all, or --datasets or --methods (the other is then all)")
    return configuration(given)


def _run(given: argparse.Namespace) -> int:
    config = _selected(given)
    from rosepo_bench.runs import runner

    return runner.run(config, _places(given, given.out), force=given.force)


def _plan(given: argparse.Namespace) -> int:
    config = _selected(given)
    from rosepo_bench.runs import cost as estimate

    rows = estimate.plan_rows(config, _places(given, given.out))
    print(json.dumps(rows, indent=1) if given.json else estimate.render(rows))
    return 0


def _ls(given: argparse.Namespace) -> int:
    rows = {
        "datasets": _datasets,
        "methods": _methods,
        "losses": _losses,
        "metrics": _metrics,
        "profiles": _profiles,
        "settings": settings,
    }[given.what]()
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {text}" for name, text in rows))
    return 0


def _datasets() -> list[tuple[str, str]]:
    from rosepo_bench.data.sources import SOURCES

    return [(name, f"{spec.what} ({spec.how})") for name, spec in SOURCES.items()]


def _methods() -> list[tuple[str, str]]:
    from rosepo_bench.runs.methods import registry

    return [(name, method.summary) for name, method in registry().items()]


def _losses() -> list[tuple[str, str]]:
    from rosepo_bench.losses.formulas import LOSSES

    return [(name, loss.about) for name, loss in LOSSES.items()]


def _metrics() -> list[tuple[str, str]]:
    from rosepo_bench.evaluation.metrics import METRICS

    return [(name, metric.description) for name, metric in METRICS.items()]


def _profiles() -> list[tuple[str, str]]:
    return [(name, str(read_profile(name).get("about", ""))) for name in profile_names()]


def _data(given: argparse.Namespace) -> int:
    from rosepo_bench.base import progress
    from rosepo_bench.data import catalog, describe, sequences

    config = configuration(given)
    dataset = config.datasets.get(given.name) or validate_source(given.name)
    places = _places(given, Path())
    with progress.shown():
        resolved = catalog.resolve(dataset.source, dataset, places.data, places.cache, places.offline)
        if given.action == "fetch":
            print(f"{given.name}: {resolved.kind}")
            print(f"  terms: {resolved.spec.terms}")
            for file in resolved.files:
                print(f"  {file.name}  {file.bytes} bytes  sha256 {file.sha256}")
            return 0
        prepared = catalog.load(resolved, dataset)
        print(describe.render(prepared, sequences.split(prepared, dataset.split)))
    return 0


def validate_source(name: str) -> DatasetConfig:
    """The default settings of a data source that no data set of the profile uses."""
    from rosepo_bench.data.sources import SOURCES

    if name not in SOURCES:
        raise UserError(f"unknown data set {name!r}; {nearest(name, SOURCES)}")
    return DatasetConfig(source=name)


def _report(given: argparse.Namespace) -> int:
    from rosepo_bench.report import tables
    from rosepo_bench.runs.index import Index

    found = Index.read(given.out).everything()
    if not any(found):
        raise UserError(f"{given.out}: no records there; run `python -m rosepo_bench run` first, or give its --out")
    print(tables.render(*found))
    for path in tables.write_report(given.out, *found):
        print(f"written: {path}")
    return 0


def _bench(given: argparse.Namespace) -> int:
    from rosepo_bench.bench import verb

    if given.table is not None:
        if given.quick or given.json is not None:
            raise UserError("--table measures nothing: give it without --quick and --json")
        return verb.show(given.table, given.into)
    if given.into is not None:
        raise UserError("--into takes the table of --table: give that too")
    return verb.bench(fast=given.quick, target=given.json, out=given.out)


def _env(given: argparse.Namespace) -> int:
    from rosepo_bench.engine import environment

    print(json.dumps(environment.facts(), indent=1))
    return 0
