"""Options that several verbs share, and the configuration and folders that they select."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosepo_bench.base.errors import UserError, nearest, shown

if TYPE_CHECKING:
    from rosepo_bench.base.config import RunConfig
    from rosepo_bench.runs.plan import Places

LONGEST_NUMBER = 15


class Once(argparse.Action):
    """Keeps an option's value, and refuses the option where it is given twice: one of the two would be ignored."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        given = vars(namespace).setdefault("given", set())
        if self.dest in given:
            parser.error(f"{option_string} is given twice; leave one")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


def whole(text: str) -> int:
    """A whole number, as an option gives it."""
    if not text.removeprefix("-").isdecimal() or len(text) > LONGEST_NUMBER:
        raise argparse.ArgumentTypeError(f"{shown(text)}: want a whole number")
    return int(text)


def folder_of(text: str) -> Path:
    """A folder's path, as an option gives it."""
    try:
        if text:
            Path(text).exists()
            return Path(text)
        reason = "an empty name"
    except (OSError, ValueError) as error:  # too long, or with a NUL
        reason = getattr(error, "strerror", None) or str(error)
    raise argparse.ArgumentTypeError(f"{shown(text)}: {reason}; give a folder")


def add_cells(verb: argparse.ArgumentParser) -> None:
    """Options that select cells (data sets, methods, seeds), the profile and the output folder."""
    verb.add_argument("--all", action="store_true", help="every data set and method of the profile")
    verb.add_argument("--datasets", action=Once, metavar="A,B", help="data sets of the profile")
    verb.add_argument("--methods", action=Once, metavar="A,B", help="methods, see `ls methods`")
    verb.add_argument("--seeds", action=Once, type=whole, metavar="N", help="number of seeds")
    add_profile(verb)
    add_out(verb)


def add_profile(verb: argparse.ArgumentParser) -> None:
    """Options for the profile, its settings, and the folders of raw files."""
    verb.add_argument(
        "--profile",
        action=Once,
        default="demo",
        help="a name of `ls profiles`, or a .toml file, whose relative paths are relative to its folder; default: demo",
    )
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one setting of `ls settings`, e.g. losses.dpo.beta=0.1; repeatable; relative paths are relative "
        "to the working directory",
    )
    verb.add_argument(
        "--data-dir",
        action=Once,
        type=folder_of,
        metavar="DIR",
        help="raw files given by hand, one folder per data set",
    )
    verb.add_argument(
        "--cache-dir",
        action=Once,
        type=folder_of,
        metavar="DIR",
        help="folder of fetched files; default: the user's cache",
    )
    verb.add_argument("--offline", action="store_true", help="fetch nothing")


def add_out(verb: argparse.ArgumentParser, folder: str = "results/runs") -> None:
    """The option for the output folder."""
    verb.add_argument(
        "--out",
        action=Once,
        type=folder_of,
        default=Path(folder),
        metavar="DIR",
        help=f"output folder; default: {folder}",
    )


def table_of(given: argparse.Namespace, **datasets: dict[str, Any]) -> dict[str, Any]:
    """The profile as tables, changed by ``--set``; ``datasets`` are added where the profile lacks them."""
    from rosepo_bench.base.configure import parse_setting, read_profile, set_key

    table = read_profile(given.profile)
    if isinstance(table.get("datasets"), dict):
        table["datasets"] = {**datasets, **table["datasets"]}
    settings = [parse_setting(setting) for setting in given.set]
    keys = [key for key, _ in settings]
    for key, value in settings:
        if keys.count(key) > 1:
            raise UserError(f"--set {shown(key)} is given twice; leave one")
        set_key(table, key, value)
    return table


def configuration(given: argparse.Namespace) -> RunConfig:
    """The profile, changed by ``--set``, reduced to the selection; the whole is validated before the reduction."""
    from rosepo_bench.base.config import RunConfig
    from rosepo_bench.base.configure import validate

    table = table_of(given)
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
                raise UserError(
                    f"profile {whole.profile} has no data set {shown(name)}; {nearest(name, whole.datasets)}"
                )
        changes["datasets"] = {name: table["datasets"][name] for name in names}
    return validate({**table, **changes}, RunConfig)


def selected(given: argparse.Namespace) -> RunConfig:
    """The configuration of a verb that works on cells. UserError: nothing is selected."""
    if not given.all and given.datasets is None and given.methods is None:
        raise UserError("nothing selected: give --all, or --datasets or --methods (the other then defaults to all)")
    return configuration(given)


def places(given: argparse.Namespace, out: Path) -> Places:
    """The run's folders, with ``out`` for its output. UserError: no such data folder."""
    from rosepo_bench.runs.plan import Places

    if given.data_dir is not None and not given.data_dir.is_dir():
        raise UserError(f"--data-dir {given.data_dir}: no such folder")
    return Places(out, given.data_dir, given.cache_dir or _default_cache(), given.offline)


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UserError(f"{option}: no name given")
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{option}: {shown(twice[0])} is listed twice")
    return names


def _default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rosepo_bench"
