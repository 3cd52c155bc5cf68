"""Builds a configuration from profiles and ``--set``; mistakes in them become readable errors."""

from __future__ import annotations

import codecs
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from rosepo_bench.base.component import limits_of, values_text
from rosepo_bench.base.config import COMPONENTS, DatasetConfig, RunConfig, Section
from rosepo_bench.base.errors import PATH, UserError, nearest, shown
from rosepo_bench.base.plain import check_plain

S = TypeVar("S", bound=Section)

# Sections that may differ between data sets; the others are the same for the whole run.
OWN = ("batch_tokens", "method", "model", "preference", "prompt", "scoring", "sft", "validation", *COMPONENTS)


LARGEST_PROFILE = 1_000_000
SHOWN = 10

SECTION, LIST, WHOLE = "want a section of settings", 'want a list, such as ["a", "b"]', "want a whole number"
WANTED = {
    "dict_type": SECTION, "model_type": SECTION, "list_type": LIST, "tuple_type": LIST, "int_type": WHOLE,
    "int_from_float": WHOLE, "float_type": "want a number", "string_type": "want text",
    "bool_type": "want true or false",
}  # fmt: skip
"""What is wanted in place of a value of another type, where pydantic's words are those of Python."""

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
    """The TOML table of a packaged profile, or of a file when ``name`` ends in ``.toml``. Paths of data sets in a file
    are relative to its folder."""
    if not name.endswith(".toml"):
        if name not in profile_names():
            ending = "; a file's name ends in .toml" if "/" in name or "." in name else ""
            raise UserError(f"unknown profile {shown(name)}; {nearest(name, profile_names())}{ending}")
        return {"profile": name, **_parsed(name, (files("rosepo_bench") / "profiles" / f"{name}.toml").read_bytes())}
    path = Path(name)
    table = {"profile": path.stem, **_parsed(name, _content(path))}
    datasets = table.get("datasets")
    for dataset in datasets.values() if isinstance(datasets, dict) else ():
        if isinstance(dataset, dict) and dataset.get("path") and isinstance(dataset["path"], str):
            dataset["path"] = str(path.parent / dataset["path"])
    return table


def _content(path: Path) -> bytes:
    where = f"profile {shown(str(path), longest=PATH)}"
    try:
        if not path.is_file():
            raise UserError(f"{where}: no such file")
        with path.open("rb") as file:
            content = file.read(LARGEST_PROFILE + 1)
    except OSError as error:
        raise UserError(f"{where}: cannot be read: {error.strerror}") from None
    if len(content) > LARGEST_PROFILE:
        raise UserError(
            f"{where}: more than {LARGEST_PROFILE:,} bytes; a profile has a few thousand: give another file"
        )
    return content


def _parsed(name: str, content: bytes) -> dict[str, Any]:
    """A profile as tables. A byte order mark, as some editors write, is left out."""
    where = f"profile {shown(name, longest=PATH)}: not readable as TOML in UTF-8"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{where}: it is in UTF-16; save it in UTF-8")
    try:
        return _toml(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{where}: line {line} holds the byte {content[error.start]:#x}; save it in UTF-8") from None
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _toml(text: str) -> dict[str, Any]:
    """ValueError: not TOML, or more than Python reads."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:  # of int(): TOML has no limit, Python has one
        raise ValueError("it holds a number of thousands of digits") from None


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
    key, value = key.strip(), value.strip()
    if not equals or not all(key.split(".")) or "\n" in text:
        raise UserError(f"--set {shown(text)}: expected key=value, e.g. --set preference.lr=1e-4")
    try:
        return key, _toml(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value
    except ValueError as error:
        raise UserError(f"--set {shown(text)}: {error}") from None


def validate(table: dict[str, Any], section: type[S], where: str = "") -> S:
    """A table as a validated section. ``where`` is the prefix of its keys in errors.

    UserError: the problems, one per line, at most ten."""
    check_plain(table, where.rstrip(".: "))
    try:
        return section.model_validate(table)
    except ValidationError as error:
        problems = [_explain(dict(problem), section, where) for problem in error.errors()[:SHOWN]]
        more = error.error_count() - SHOWN
        raise UserError("\n".join(problems + [f"and {more} more such problems"] * (more > 0))) from None


def for_dataset(config: RunConfig, name: str) -> RunConfig:
    """The configuration of one data set: the run's with the data set's ``overrides`` applied."""
    table = config.model_dump(exclude_unset=True)
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
            yield prefix + name, f"{field.description}{_values(name, field)}"
        if name == "datasets":
            yield from _settings(DatasetConfig, "datasets.NAME.")


def _values(name: str, field: FieldInfo) -> str:
    """The values that a key takes and its default, in brackets. The default of ``lr`` depends on the model: its
    description says how."""
    free = field.is_required() or field.default_factory or name == "lr"
    return values_text(field.annotation, limits_of(field.metadata), MISSING if free else field.default)


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
        return ": ".join(filter(None, ("configuration", path, problem["msg"].removeprefix("Value error, "))))
    wanted = WANTED.get(problem["type"], problem["msg"])
    return f"configuration: {path} = {shown(problem['input'])}: {wanted}"


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
