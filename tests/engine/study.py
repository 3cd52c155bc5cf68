"""What the studies of trained models share: the options of a run, its cells, and the sentence about the machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from rosepo_bench.base.config import RunConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.commands import selection
from rosepo_bench.runs import runner
from rosepo_bench.runs.cells import Cell
from rosepo_bench.runs.plan import Places, cells, is_done


def parser(about: str | None, *, out: str, into: str) -> argparse.ArgumentParser:
    """``run``'s options of profile, settings, data and output folder, one data set, and where the Markdown goes."""
    found = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    selection.add_profile(found)
    selection.add_out(found, out)
    found.add_argument("--dataset", default="movielens", metavar="NAME", help="of the profile; default: movielens")
    found.add_argument("--into", type=Path, default=Path(into), metavar="FILE", help=f"Markdown; default: {into}")
    return found


def configuration(given: argparse.Namespace, methods: str, settings: Sequence[str] = ()) -> RunConfig:
    """The configuration of the options and further ``settings``, KEY=VALUE."""
    chosen = {"datasets": given.dataset, "methods": methods, "set": [*given.set, *settings]}
    return selection.configuration(argparse.Namespace(**{**vars(given), **chosen}))


def places(given: argparse.Namespace, out: Path) -> Places:
    return selection.places(given, out)


def finished(config: RunConfig, where: Places) -> list[Cell]:
    """The cells of a run; where some have no record yet, it is run first. UserError where one failed."""
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True)  # as in a run, also where there is nothing left to run
    planned = cells(config, where)
    if not all(map(is_done, planned)) and runner.run(config, where):
        raise UserError(
            f"{where.out}: some cells failed, their tracebacks are in failures/; the same command tries again"
        )
    return planned


def machine(facts: Mapping[str, Any]) -> str:
    """What times and last digits depend on, in words, of ``environment.facts``."""
    packages, library, threads = facts["packages"], facts["library"], facts["threads"]
    return (
        f"torch {packages['torch']}, transformers {packages['transformers']}, build {library['build_id']}, CPU level "
        f"{library['isa']}, {facts['processor']}, {facts['cores']} cores, {threads} thread{'s' * (threads > 1)}"
    ) + (f", {facts['gpu']}" if facts["gpu"] else "")


def profile(given: argparse.Namespace, config: RunConfig) -> str:
    """The profile and what was set beside it."""
    return " ".join([f"profile `{config.profile}`", *(f"`--set {setting}`" for setting in given.set)])


def spread(ratio: Float64[np.ndarray, " n"]) -> str:
    """Median and 20th and 80th percentile."""
    low, middle, high = np.percentile(ratio, (20, 50, 80))
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def run(study: Callable[[list[str] | None], int], arguments: list[str] | None = None) -> int:
    """The exit status of a study: 2, in words, for input that cannot be used."""
    try:
        return study(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
