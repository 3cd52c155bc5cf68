"""Components: the parts that a method is composed of. A component is a frozen dataclass whose fields are its settings.

    class Softmax(Sampler):
        name, about = "softmax", "items in proportion to exp(score / temperature)"
        temperature: float = setting(1.0, gt=0, about="temperature of the softmax")

Declaring the class is enough: no decorator, no registration call. Values are checked when the component is made, and
again when the command line changes them. A field may hold another component.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import operator
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass
from typing import Any, ClassVar, Literal, TypeVar

from rosepo_bench.base.errors import UserError, shown

S = TypeVar("S", bound="Settings")

LIMITS = {"gt": (">", operator.gt), "ge": (">=", operator.ge), "lt": ("<", operator.lt), "le": ("<=", operator.le)}
MOST = 10**9
"""No whole number of a setting is larger, whatever its range."""


@dataclass(frozen=True)
class Search:
    """The numbers between two ends among which tuning looks for the best. A range of validity is no search space, so
    this is said separately."""

    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"


def log(low: float, high: float) -> Search:
    """Positive numbers between two ends, alike on a logarithmic scale."""
    return Search(low, high, "log")


def linear(low: float, high: float) -> Search:
    """Numbers between two ends."""
    return Search(low, high)


def setting(
    default: Any = MISSING,
    *,
    factory: Any = MISSING,
    about: str = "",
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    search: Search | None = None,
) -> Any:
    """A field of a component: its default, its range, where tuning searches, and what it does."""
    given = {"gt": gt, "ge": ge, "lt": lt, "le": le}
    limits = {name: float(value) for name, value in given.items() if value is not None}
    metadata = {"limits": limits, "search": search, "about": about}
    if factory is not MISSING:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@typing.dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,))
class Settings:
    """A frozen dataclass without further ado: its fields are checked against their types and ranges when it is made.
    UserError names the class, the field, its value and what is wanted."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        dataclass(frozen=True, kw_only=True)(cls)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = fitted(type(self), field, getattr(self, field.name), f"{self.label()}.{field.name}")
            object.__setattr__(self, field.name, value)
        self.check()

    def check(self) -> None:
        """Override to refuse combinations of values with a UserError."""

    def label(self) -> str:
        """How errors call it."""
        return type(self).__name__


class Component(Settings):
    """A part of a method, with a ``name`` by which the command line knows it. ``paper`` is its source."""

    name: ClassVar[str] = ""
    about: ClassVar[str] = ""
    paper: ClassVar[str] = ""

    def label(self) -> str:
        return self.name or type(self).__name__


def fitted(cls: type, field: dataclasses.Field[Any], value: Any, where: str) -> Any:
    """``value`` as the field holds it. UserError, beginning with ``where``: of another type, or out of range."""
    value = checked(where, value, field_type(cls, field))
    _check_limits(where, value, field.metadata.get("limits", {}))
    return value


def field_type(cls: type, field: dataclasses.Field[Any]) -> Any:
    """The declared type of a field; ``Any`` where the annotation cannot be resolved at run time."""
    for owner in cls.__mro__:
        kind = inspect.get_annotations(owner).get(field.name, None)
        if isinstance(kind, str):
            names = vars(sys.modules[owner.__module__]) if owner.__module__ in sys.modules else {}
            try:
                return eval(kind, dict(names), dict(vars(owner)))  # as typing.get_type_hints does, one field at a time
            except NameError:
                return Any
        if kind is not None:
            return kind
    return Any


def checked(where: str, value: Any, kind: Any) -> Any:
    """``value`` if it is of type ``kind``, with whole numbers made floats and lists tuples where those are wanted.
    UserError otherwise."""
    if kind is Any or (fitted := _fitted(value, kind)) is not _UNFIT:
        return value if kind is Any else fitted
    raise UserError(f"{where} = {_shown(value)}: want {describe(kind)}")


_UNFIT = object()


def _fitted(value: Any, kind: Any) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return value if any(value == one and type(value) is type(one) for one in inner) else _UNFIT
    if origin in (typing.Union, types.UnionType):
        fitting = (found for one in inner if (found := _fitted(value, one)) is not _UNFIT)
        return next(fitting, _UNFIT)
    if origin is tuple:
        return _fitted_tuple(value, inner)
    if origin is not None:
        kind = origin
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < sys.float_info.max else math.inf
    if kind in (int, float) and isinstance(value, bool):
        return _UNFIT
    return value if not isinstance(kind, type) or isinstance(value, kind) else _UNFIT


def _fitted_tuple(value: Any, inner: tuple[Any, ...]) -> Any:
    if not isinstance(value, list | tuple):
        return _UNFIT
    kinds = (inner[0],) * len(value) if inner[1:] == (...,) else inner
    if len(kinds) != len(value):
        return _UNFIT
    found = tuple(_fitted(one, kind) for one, kind in zip(value, kinds, strict=True))
    return _UNFIT if any(one is _UNFIT for one in found) else found


def describe(kind: Any) -> str:
    """A type in words, with the range of an annotated one."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        limits = limits_of(metadata for one in inner[1:] for metadata in getattr(one, "metadata", (one,)))
        return f"{describe(inner[0])} {limits_text(limits)}".rstrip()
    if origin is Literal:
        return " or ".join(repr(one) for one in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(one) for one in inner)
    if origin in (tuple, list):
        number = "" if origin is list or inner[1:] == (...,) else f"{len(inner)} "
        return f"a list of {number}values, each {describe(inner[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return "a table"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "nothing"}
    name = getattr(kind, "__name__", str(kind)).lower()
    return words.get(kind, f"{'an' if name[0] in 'aeiou' else 'a'} {name}")


def _check_limits(where: str, value: Any, limits: Mapping[str, float]) -> None:
    for one in value if isinstance(value, tuple) else (value,):
        if isinstance(one, float) and not math.isfinite(one):
            raise UserError(f"{where} = {one}: want a finite number")
        if any(not LIMITS[name][1](one, limit) for name, limit in limits.items()):
            raise UserError(f"{where} = {_shown(one)}: want {limits_text(limits)}")
        if isinstance(one, int) and one > MOST:
            raise UserError(f"{where} = {_shown(one)}: want at most {MOST:,}")


def limits_of(metadata: Iterable[Any]) -> dict[str, float]:
    """The limits among the metadata of an annotated type."""
    return {name: getattr(one, name) for one in metadata for name in LIMITS if hasattr(one, name)}


def limits_text(limits: Mapping[str, float]) -> str:
    """A range in words: ``> 0 and <= 0.5``."""
    return " and ".join(f"{LIMITS[name][0]} {_number(limit)}" for name, limit in limits.items())


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 and value == int(value) else f"{value:g}"


def values_text(kind: Any, limits: Mapping[str, float], default: Any = MISSING) -> str:
    """What a setting takes and its default, in brackets, as a profile writes them."""
    parts = [f"{describe(kind)} {limits_text(limits)}".rstrip()]
    if default is not MISSING:
        plain = (
            default.label() if isinstance(default, Settings) else json.dumps(default, ensure_ascii=False, default=str)
        )
        parts.append(f"default {plain}")
    return f" ({'; '.join(parts)})"


def described(settings: type[Settings]) -> Iterator[tuple[str, str]]:
    """The names of a class's settings, with effect, values and default."""
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        if field.metadata.get("settable", True):
            values = values_text(field_type(settings, field), field.metadata.get("limits", {}), field.default)
            yield field.name, field.metadata.get("about", "") + values


def _shown(value: Any) -> str:
    return value.label() if isinstance(value, Settings) else shown(value)


def flat(settings: Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and plain values of all settings. A field that holds a component also gives its name."""
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, field.name)
        if isinstance(value, Settings):
            if isinstance(value, Component):
                yield f"{prefix}{field.name}", value.label()
            yield from flat(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", list(value) if isinstance(value, tuple) else value
