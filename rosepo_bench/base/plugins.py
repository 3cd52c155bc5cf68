"""Which components there are: those of this package, found by looking through a folder, and those that other packages
declare as entry points. A package that cannot be imported is remembered as broken and stops nothing else."""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from rosepo_bench.base.errors import UserError, nearest, shown
from rosepo_bench.base.plain import NAME, NAMING

PACKAGE = "rosepo_bench"


@dataclass(frozen=True)
class Kind:
    """A kind of component: ``plural`` names the entry-point group ``rosepo_bench.PLURAL``, ``package`` is the folder of
    ours. ``declared``: what is registered are objects, such as methods and metrics, and not classes."""

    one: str
    plural: str
    package: str
    declared: bool = False

    @property
    def group(self) -> str:
        return f"{PACKAGE}.{self.plural}"


@dataclass(frozen=True)
class Registry:
    """The components of one kind by name, where each comes from, and those that cannot be used, with the reason."""

    kind: Kind
    found: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        """The component of this name. UserError: unknown, or its package cannot be imported."""
        if name in self.broken:
            raise UserError(f"{self.kind.one} {name!r}: {self.broken[name]}")
        if name not in self.found:
            raise UserError(f"unknown {self.kind.one} {shown(name)}; {nearest(name, self.names())}")
        return self.found[name]

    def names(self) -> list[str]:
        """All names, of broken components too."""
        return sorted({*self.found, *self.broken})

    def add(self, name: str, component: Any, origin: str) -> None:
        """Registers a component; a name that is taken by another one, or that cannot name a folder, is refused."""
        if not NAME.fullmatch(name):
            self.broken[shown(name)] = f"({origin}) {NAMING}"
        elif name not in self.found:
            self.found[name], self.origin[name] = component, origin
        elif self.found[name] != component:
            self.broken[f"{name} ({origin})"] = f"the name {name!r} is taken by {self.origin[name]}; rename it"


@functools.cache
def registry(base: Any) -> Registry:
    """All components of ``base``, a class with a ``kind``: ours first, in the order of names, then other packages'."""
    found = Registry(base.kind)
    for component in sorted(_ours(base), key=lambda one: _natural(one.name)):
        found.add(component.name, component, PACKAGE)
    for entry in sorted(entry_points(group=base.kind.group), key=lambda one: (one.name, _distribution(one))):
        _load(entry, base, found)
    return found


def _ours(base: Any) -> Iterator[Any]:
    package = importlib.import_module(base.kind.package)
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        for value in list(vars(importlib.import_module(module.name)).values()):
            if _fits(value, base) and (base.kind.declared or value.__module__ == module.name):
                yield value


def _natural(name: str) -> list[str | int]:
    """Sorts hr@5 before hr@10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _fits(value: Any, base: Any) -> bool:
    """Whether a value is a component of this kind with a name of its own."""
    if base.kind.declared:
        return isinstance(value, base)
    return isinstance(value, type) and issubclass(value, base) and bool(value.__dict__.get("name"))


def _load(entry: EntryPoint, base: Any, found: Registry) -> None:
    where = f"{entry.value}, {_distribution(entry)}"
    try:
        component = entry.load()
    except Exception as error:  # another package's code can fail in any way
        reason = f"{type(error).__name__}: {error}".strip()
        found.broken[entry.name] = f"({where}) cannot be imported: {reason}; fix or remove that package"
        return
    if not _fits(component, base):
        found.broken[entry.name] = f"({where}) is not a {base.kind.one} with a name, but {_what(component)}"
    elif component.name != entry.name:
        found.broken[entry.name] = f"({where}) calls itself {component.name!r}; the two names must be the same"
    else:
        found.add(entry.name, component, where)


def _what(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "no package"
