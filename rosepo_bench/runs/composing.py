"""The methods and protocols of a run: names, and the settings that profiles and the command line give them."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rosepo_bench.base.component import flat
from rosepo_bench.base.compose import Sections, UnknownSetting, with_sections, with_settings
from rosepo_bench.base.config import COMPONENTS, PreferenceConfig, RunConfig
from rosepo_bench.base.configure import validate
from rosepo_bench.base.errors import UserError, nearest, shown
from rosepo_bench.base.plugins import Registry, registry
from rosepo_bench.evaluation.metrics.base import Predictions, ranking_metric
from rosepo_bench.evaluation.protocols.base import Protocol
from rosepo_bench.losses.base import Loss
from rosepo_bench.preference.samplers.base import Sampler
from rosepo_bench.preference.smoothings.base import Smoothing
from rosepo_bench.recommenders.base import Oracle
from rosepo_bench.runs.methods import Method, Preference, methods

LONGEST_LIST = 10_000
"""Longer lists of candidates are not looked at for a metric that is constant."""
KINDS: dict[str, Any] = {
    "losses": Loss, "samplers": Sampler, "smoothings": Smoothing, "oracles": Oracle, "protocols": Protocol
}  # fmt: skip


def select(names: list[str]) -> list[str]:
    """The names of a run's methods, checked: known, and each once. One whose package is broken is known."""
    known = methods()
    for name in names:
        if name not in known.names():
            raise UserError(f"unknown method {shown(name)}; {nearest(name, known.names())}")
        if names.count(name) > 1:
            raise UserError(f"method {name!r} is listed twice")
    return names


def composed(method: Method, config: RunConfig) -> Method:
    """The method with the settings of the run, weakest first: ``[losses.NAME]`` and the like, ``[method.PATTERN]``,
    ``[method.NAME]``. UserError: unknown settings, values out of range, parts that do not go together."""
    sections = {kind: getattr(config, kind) for kind in COMPONENTS}
    method = with_sections(method, sections)
    for pattern, table in config.method.items():
        if is_pattern(pattern) and fnmatch.fnmatchcase(method.name, pattern):
            for path, value in leaves(table):
                method = _where_it_applies(method, path, value, sections)
    own = config.method.get(method.name, {})
    for key in own:
        if isinstance(method, Preference) and key in PreferenceConfig.model_fields:
            where = f"method.{method.name}"
            raise UserError(f"{where}.{key}: it is a setting of the method's training; write {where}.training.{key}")
    method = with_settings(method, own, f"method.{method.name}", sections)
    if isinstance(method, Preference):
        _check_dropout(method, config)
    return method


def _check_dropout(method: Preference, config: RunConfig) -> None:
    model = config.model
    dropped = training(method, config).dropout and model.training == "lora" and model.lora_dropout
    if dropped and method.loss.of_whole_step:
        raise UserError(
            f"method.{method.name}: loss {method.loss.label()!r} looks at a whole step without dropout; set "
            "preference.dropout = false, or model.lora_dropout = 0"
        )


def training(method: Preference, config: RunConfig) -> PreferenceConfig:
    """The settings of its preference training: the common ones, changed by the method's ``training``."""
    where = f"method.{method.name}.training."
    return validate({**config.preference.model_dump(), **method.training}, PreferenceConfig, where)


def settings_of(method: Method) -> dict[str, Any]:
    """All settings of a method by dotted name, as records and tables show them."""
    found = {
        name: value for name, value in flat(method) if name.split(".")[0] not in ("name", "about", "paper", "reading")
    }
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in found.items()}


def protocols(config: RunConfig) -> list[Protocol]:
    """The protocols of a run."""
    for name in config.protocols:
        if config.protocols.count(name) > 1:
            raise UserError(f"protocol {name!r} is listed twice")
    return [registry(Protocol)[name]() for name in config.protocols]


def check_sections(config: RunConfig) -> None:
    """Refuses sections of methods and components that are not there, patterns that reach nothing, and a validation
    metric that training cannot be watched by."""
    known = methods()
    ranking_metric(config.validation.metric)
    for pattern, table in config.method.items():
        if is_pattern(pattern):
            _check_pattern(pattern, table, known)
        elif pattern not in known.names():
            raise UserError(f"[method.{pattern}]: there is no such method; {nearest(pattern, known.names())}")
    for kind in COMPONENTS:
        for name, table in getattr(config, kind).items():
            component, where = registry(KINDS[kind])[name], f"{kind}.{name}"
            fields = [field.name for field in dataclasses.fields(component)]
            for key in table:
                if key not in fields:
                    raise UserError(f"{where}.{key}: there is no such setting; {nearest(key, fields)}")


def check_metric(name: str, size: int) -> None:
    """Refuses a validation metric that has one value for every rank in a list of ``size``: nothing is chosen by it."""
    metric, ranks = ranking_metric(name), np.arange(1, min(size, LONGEST_LIST) + 1)
    if metric.needs == {"rank"} and np.ptp(metric(Predictions(users=ranks, rank=ranks))) == 0:
        raise UserError(
            f"validation.metric = {name!r} is the same for every rank in a list of candidates = {size}, so it cannot "
            "tell a better model; take another metric or longer lists"
        )


def check_listed(method: Method, config: RunConfig, size: int) -> None:
    """Refuses more rejected items than a prompt that lists ``size`` candidates has place for."""
    if isinstance(method, Preference) and config.prompt.candidates and method.rejected >= size:
        raise UserError(
            f"method.{method.name}.rejected = {method.rejected}: prompts list candidates = {size}, the chosen item "
            "among them; raise candidates, or lower rejected"
        )


def is_pattern(name: str) -> bool:
    return any(letter in name for letter in "*?[")


def leaves(table: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The paths and values of nested tables."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, (*prefix, key))
        else:
            yield (*prefix, key), value


def _nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    table: dict[str, Any] = value
    return table


def _where_it_applies(method: Method, path: tuple[str, ...], value: Any, sections: Sections) -> Method:
    try:
        return with_settings(method, _nested(path, value), f"method.{method.name}", sections)
    except UnknownSetting:
        return method


def _check_pattern(pattern: str, table: Mapping[str, Any], known: Registry) -> None:
    matching = [known.found[name] for name in known.found if fnmatch.fnmatchcase(name, pattern)]
    if not matching:
        raise UserError(f"[method.{pattern}]: no method has such a name; known: {', '.join(known.names())}")
    for path, value in leaves(table):
        if not any(_has(method, path, value) for method in matching):
            raise UserError(f"method.{pattern}.{'.'.join(path)}: none of the methods has such a setting")


def _has(method: Method, path: tuple[str, ...], value: Any) -> bool:
    try:
        with_settings(method, _nested(path, value), f"method.{method.name}")
    except UnknownSetting:
        return False
    except UserError:
        return True  # it has it, and refuses the value: said where the method is composed
    return True
