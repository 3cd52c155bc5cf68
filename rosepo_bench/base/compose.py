"""Changes the settings of components from tables, as profiles and ``--set`` give them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from rosepo_bench.base.component import Component, Settings, fitted
from rosepo_bench.base.errors import UserError, nearest
from rosepo_bench.base.plugins import registry

S = TypeVar("S", bound=Settings)
Sections = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Kind (plural), component's name, its settings."""
NONE: Sections = {}


class UnknownSetting(UserError):
    """There is no setting of this name."""


def settable(component: Settings) -> dict[str, dataclasses.Field[Any]]:
    """The fields that are settings, by name."""
    return {field.name: field for field in dataclasses.fields(component) if field.metadata.get("settable", True)}  # type: ignore[arg-type]


def with_settings(component: S, table: Mapping[str, Any], where: str, sections: Sections = NONE) -> S:
    """``component`` with the settings of ``table``. A field that holds a component takes a table of changes; ``name``
    in it, or a text in its place, puts another component of the same kind there, which begins with the settings of
    ``sections``. ``where`` is the prefix of keys in errors. UserError: unknown key or component, value of a wrong type
    or out of range."""
    known, changes = settable(component), {}
    for key, value in table.items():
        if key not in known:
            raise UnknownSetting(f"{where}.{key}: {component.label()} has no such setting; {nearest(key, known)}")
        current = getattr(component, key)
        if isinstance(current, Component) and isinstance(value, str | dict):
            value = _inner(current, value, f"{where}.{key}", sections)
        elif isinstance(current, Mapping) and isinstance(value, dict):
            value = {**current, **value}
        changes[key] = fitted(type(component), known[key], value, f"{where}.{key}")
    return _changed(component, changes, where) if changes else component


def _inner(current: Component, given: str | Mapping[str, Any], where: str, sections: Sections) -> Component:
    table = {"name": given} if isinstance(given, str) else dict(given)
    name = table.pop("name", current.label())
    if name != current.label():
        return _made(registry(kind_of(current))[str(name)], table, where, sections)
    return with_settings(current, table, where, sections)


def _made(component: type[Component], table: Mapping[str, Any], where: str, sections: Sections) -> Component:
    """A component of another class, with ``sections`` and then ``table`` in place of its defaults."""
    kind: Any = component.kind  # type: ignore[attr-defined]  # every class in a registry has one
    given = {**sections.get(kind.plural, {}).get(component.name, {}), **table}
    fields = {field.name: field for field in dataclasses.fields(component)}
    without = [name for name, one in fields.items() if one.default is one.default_factory is dataclasses.MISSING]
    if lacking := [name for name in without if name not in given]:
        raise UserError(f"{where}: {component.name} needs a value for {', '.join(lacking)}")
    needed = {name: fitted(component, fields[name], given[name], f"{where}.{name}") for name in without}
    return with_settings(with_sections(component(**needed), sections), table, where, sections)


def _changed(component: S, changes: Mapping[str, Any], where: str) -> S:
    try:
        return dataclasses.replace(component, **changes)  # type: ignore[type-var]
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def parts(settings: Settings) -> Iterator[Component]:
    """The components within, at any depth."""
    for name in settable(settings):
        inner = getattr(settings, name)
        if isinstance(inner, Component):
            yield inner
            yield from parts(inner)


def kind_of(component: Component) -> Any:
    """The class that gives a component its kind, such as Sampler."""
    return next(base for base in reversed(type(component).__mro__) if "kind" in base.__dict__)


def with_sections(component: S, sections: Sections) -> S:
    """``component`` and all within it, changed by ``sections``:
    ``{"losses": {"dpo": {"beta": 0.1}}}`` reaches every use of the loss."""
    changes: dict[str, Any] = {}
    for name in settable(component):
        inner = getattr(component, name)
        if isinstance(inner, Settings) and (new := with_sections(inner, sections)) is not inner:
            changes[name] = new
    if isinstance(component, Component):
        kind = kind_of(component).kind.plural
        own = sections.get(kind, {}).get(component.label(), {})
        component = with_settings(component, own, f"{kind}.{component.label()}")
    return _changed(component, changes, component.label()) if changes else component
