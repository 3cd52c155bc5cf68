"""``ls``: names of data sets, methods, losses, metrics, profiles and settings."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

Rows = list[tuple[str, str]]


def add(verbs: Any) -> argparse.ArgumentParser:
    """The verb and its options."""
    verb: argparse.ArgumentParser = verbs.add_parser(
        "ls", help="list data sets, methods, losses, metrics, profiles or settings"
    )
    verb.add_argument("what", choices=tuple(LISTS))
    return verb


def run(given: argparse.Namespace) -> int:
    """Prints names with their descriptions."""
    rows = LISTS[given.what]()
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {text}" for name, text in rows))
    return 0


def _datasets() -> Rows:
    from rosepo_bench.data.sources import SOURCES

    return [(name, f"{spec.what} ({spec.how})") for name, spec in SOURCES.items()]


def _methods() -> Rows:
    from rosepo_bench.runs.methods import registry

    return [(name, method.summary) for name, method in registry().items()]


def _losses() -> Rows:
    from rosepo_bench.losses.formulas import LOSSES

    return [(name, loss.about) for name, loss in LOSSES.items()]


def _metrics() -> Rows:
    from rosepo_bench.evaluation.metrics import METRICS

    return [(name, metric.description) for name, metric in METRICS.items()]


def _profiles() -> Rows:
    from rosepo_bench.base.configure import profile_names, read_profile

    return [(name, str(read_profile(name).get("about", ""))) for name in profile_names()]


def _settings() -> Rows:
    from rosepo_bench.base.configure import settings

    return settings()


LISTS: dict[str, Callable[[], Rows]] = {
    "datasets": _datasets,
    "methods": _methods,
    "losses": _losses,
    "metrics": _metrics,
    "profiles": _profiles,
    "settings": _settings,
}
