"""``ls``: what there is: data sets, methods and their components, metrics, profiles, settings."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rosepo_bench.base.plugins import Registry

Rows = list[tuple[str, str]]
WIDTH = 100


def add(verbs: Any) -> argparse.ArgumentParser:
    """The verb and its options."""
    verb: argparse.ArgumentParser = verbs.add_parser("ls", help=f"list {', '.join(LISTS)}")
    verb.add_argument("what", choices=tuple(LISTS))
    return verb


def run(given: argparse.Namespace) -> int:
    """Prints names with their descriptions."""
    rows = LISTS[given.what]()
    width = max(len(name) for name, _ in rows)
    room = max(40, shutil.get_terminal_size((width + 2 + WIDTH, 24)).columns - width - 2)
    for name, text in rows:
        lines = [line for part in text.split("\n") for line in textwrap.wrap(part, room) or [""]]
        print("\n".join(f"{name if not number else '':<{width}}  {line}" for number, line in enumerate(lines)))
    return 0


def _datasets() -> Rows:
    from rosepo_bench.data.sources import SOURCES

    return [(name, f"{spec.what} ({spec.how})") for name, spec in SOURCES.items()]


def _methods() -> Rows:
    from rosepo_bench.runs.methods import methods

    found = methods()
    return [(name, _method(found.found[name])) for name in sorted(found.found)] + _broken(found)


def _method(method: Any) -> str:
    """About, its parts, its source, and what is our reading of it."""
    from rosepo_bench.runs.methods import Preference

    lines = [method.about + (f" ({method.paper})" if method.paper else "")]
    if isinstance(method, Preference):
        parts = {"loss": method.loss, "sampler": method.sampler, "smoothing": method.smoothing}
        named = [f"{kind} {part.label()}" for kind, part in parts.items()]
        rounds = [f"{method.rounds} rounds"] if method.rounds > 1 else []
        lines.append(", ".join([*named, f"K = {method.rejected}", *rounds]))
    if method.reading:
        lines.append(f"our reading: {method.reading}")
    return "\n".join(lines)


def _components(kind: str) -> Rows:
    from rosepo_bench.base.plugins import registry
    from rosepo_bench.runs.composing import KINDS
    from rosepo_bench.runs.methods import methods

    methods()  # makes the components known that only methods name
    found = registry(KINDS[kind])
    return [(name, _component(found, name)) for name in sorted(found.found)] + _broken(found)


def _component(found: Registry, name: str) -> str:
    from rosepo_bench.base.component import described
    from rosepo_bench.base.plugins import PACKAGE

    component, origin = found.found[name], found.origin[name]
    source = [part for part in (component.paper, "" if origin == PACKAGE else origin) if part]
    names = [setting for setting, _ in described(component)]
    text = component.about + (f" ({', '.join(source)})" if source else "")
    return text + (f"\nsettings: {', '.join(names)}" if names else "")


def _broken(found: Registry) -> Rows:
    return [(name, f"cannot be used: {reason}") for name, reason in sorted(found.broken.items())]


def _metrics() -> Rows:
    from rosepo_bench.base.plugins import registry
    from rosepo_bench.evaluation.metrics.base import Metric

    found = registry(Metric)
    return [(name, metric.about) for name, metric in found.found.items()] + _broken(found)


def _profiles() -> Rows:
    from rosepo_bench.base.configure import profile_names, read_profile

    return [(name, str(read_profile(name).get("about", ""))) for name in profile_names()]


def _settings() -> Rows:
    from rosepo_bench.base.component import described
    from rosepo_bench.base.config import COMPONENTS
    from rosepo_bench.base.configure import settings
    from rosepo_bench.base.plugins import registry
    from rosepo_bench.runs.composing import KINDS
    from rosepo_bench.runs.methods import Preference

    rows = settings()
    rows += [(f"method.NAME.{name}", text) for name, text in described(Preference)]
    for kind in COMPONENTS:
        for name, component in sorted(registry(KINDS[kind]).found.items()):
            rows += [(f"{kind}.{name}.{setting}", text) for setting, text in described(component)]
    return rows


LISTS: dict[str, Callable[[], Rows]] = {
    "datasets": _datasets,
    "methods": _methods,
    "losses": lambda: _components("losses"),
    "samplers": lambda: _components("samplers"),
    "smoothings": lambda: _components("smoothings"),
    "oracles": lambda: _components("oracles"),
    "protocols": lambda: _components("protocols"),
    "metrics": _metrics,
    "profiles": _profiles,
    "settings": _settings,
}
