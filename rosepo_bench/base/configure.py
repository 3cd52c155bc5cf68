"""Builds a configuration from profiles and ``--set``; mistakes in them become readable errors."""

from __future__ import annotations

import tomllib
import typing
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from rosepo_bench.base.component import LIMITS, describe, limits_text
from rosepo_bench.base.config import COMPONENTS, DatasetConfig, RunConfig, Section
from rosepo_bench.base.errors import UserError, nearest

S = TypeVar("S", bound=Section)

# Sections that may differ between data sets; the others are the same for the whole run.
OWN = ("batch_tokens", "method", "model", "preference", "prompt", "scoring", "sft", "validation", *COMPONENTS)


# Settings that have become those of components, and where they are now.
MOVED = {
    "preference.beta": "losses.NAME.beta, or method.NAME.loss.beta",
    "preference.form": "method.NAME.loss",
    "preference.epsilon": "smoothings.constant.value",
    "preference.epsilon_max": "smoothings.predicted.cap",
    "preference.self_hard_pool": "samplers.self_hard.items",
    "preference.semantic_anchor": "samplers.semantic.anchor",
    "preference.semantic_temperature": "samplers.semantic.temperature",
    "preference.popularity_exponent": "samplers.popularity.exponent",
    "sasrec": "oracles.sasrec",
    "oracle": "smoothings.predicted",
    "scoring.score": "protocols",
}


def profile_names() -> list[str]:
    """The profiles that the package ships."""
    folder = files("rosepo_bench") / "profiles"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_profile(name: str) -> dict[str, Any]:
    """The TOML table of a packaged profile, or of a file when ``name`` ends in ``.toml``."""
    if name.endswith(".toml"):
        source: Any = Path(name)
        if not source.is_file():
            raise UserError(f"profile {name}: no such file")
    elif name in profile_names():
        source = files("rosepo_bench") / "profiles" / f"{name}.toml"
    else:
        raise UserError(f"unknown profile {name!r}; {nearest(name, profile_names())}")
    try:
        return {"profile": Path(name).stem, **tomllib.loads(source.read_text(encoding="utf-8"))}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"profile {name}: not readable as TOML in UTF-8: {error}") from error


def set_key(table: dict[str, Any], dotted: str, value: Any) -> None:
    """Sets ``a.b.c`` in nested tables; the schema validates the result later."""
    *parents, last = dotted.split(".")
    components = parents[:1] == ["method"]  # there a text stands for the component of that name
    for parent in parents:
        inner = table.setdefault(parent, {})
        if isinstance(inner, str) and components:
            inner = table[parent] = {"name": inner}
        if not isinstance(inner, dict):
            raise UserError(f"{dotted}: {parent!r} is a value, not a section")
        table = inner
    if isinstance(value, str) and components and isinstance(table.get(last), dict):
        value = {**table[last], "name": value}
    table[last] = value


def parse_setting(text: str) -> tuple[str, Any]:
    """``key=value`` with the value read as TOML (``1e-4``, ``true``, ``"text"``); bare words are text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or "\n" in text:
        raise UserError(f"--set {text!r}: expected key=value, e.g. --set preference.lr=1e-4")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def validate(table: dict[str, Any], section: type[S], where: str = "") -> S:
    """A table as a validated section. ``where`` is the prefix of its keys in errors.

    UserError: every problem, one per line."""
    try:
        return section.model_validate(table)
    except ValidationError as error:
        problems = [_explain(dict(problem), section, where) for problem in error.errors()]
        raise UserError("\n".join(problems)) from None


def for_dataset(config: RunConfig, name: str) -> RunConfig:
    """The configuration of one data set: the run's with the data set's ``overrides`` applied."""
    table = config.model_dump()
    for dotted, value in _flat(config.datasets[name].overrides):
        if dotted.split(".")[0] not in OWN:
            raise UserError(f"datasets.{name}.overrides: {dotted!r} cannot differ between data sets")
        set_key(table, dotted, value)
    return validate(table, RunConfig, f"datasets.{name}.overrides: ")


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values, so that a nested section changes only the keys it names."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def settings() -> list[tuple[str, str]]:
    """Every key of the configuration with its effect, its values and its default, for `ls settings`. Settings of
    components are not among them."""
    return list(_settings(RunConfig, ""))


def _settings(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _settings(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, f"{field.description}{_values(field)}"
        if name == "datasets":
            yield from _settings(DatasetConfig, "datasets.NAME.")


def _values(field: FieldInfo) -> str:
    """The values that a key takes and its default, in brackets."""
    limits = {name: getattr(one, name) for one in field.metadata for name in LIMITS if hasattr(one, name)}
    parts = [describe(field.annotation)] if typing.get_origin(field.annotation) is Literal else []
    parts += [limits_text(limits)] if limits else []
    if not (field.is_required() or field.default_factory):
        parts.append(f"default {field.default!r}")
    return f" ({'; '.join(parts)})" if parts else ""


def _explain(problem: dict[str, Any], section: type[BaseModel], where: str) -> str:
    path = where + ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        if path.removeprefix(where) in MOVED:
            return f"configuration: unknown key {path!r}; it is now {MOVED[path.removeprefix(where)]}"
        known = _siblings(problem["loc"], section)
        return f"configuration: unknown key {path!r}; {nearest(str(problem['loc'][-1]), known)}"
    if problem["type"] == "missing":
        return f"configuration: {path!r} is missing"
    if problem["type"] == "value_error":  # our own check over several keys, with its own message
        return f"configuration: {path}: {problem['msg'].removeprefix('Value error, ')}"
    return f"configuration: {path} = {problem['input']!r}: {problem['msg']}"


def _siblings(location: tuple[Any, ...], section: type[BaseModel]) -> list[str]:
    """The known keys of the section that holds the last element of ``location``."""
    for part in location[:-1]:
        field = section.model_fields.get(str(part))
        if field is None:  # a data set's name, which is free
            continue
        if part == "datasets":
            section = DatasetConfig
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            section = field.annotation
    return list(section.model_fields)
