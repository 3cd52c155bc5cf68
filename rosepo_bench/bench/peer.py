"""A contestant of a benchmark: what it calls, from which package, and whether it can run here."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rosepo_bench.bench.timer import Call

OURS = "rosepo_bench"


@dataclass(frozen=True)
class Peer:
    """``function``: what it calls, in words; ``package``: where that comes from; ``module``: what must be importable;
    ``prepare`` makes the call from the drawn work and the mode."""

    name: str
    function: str
    prepare: Callable[[Any, str], Call]
    package: str = "torch"
    module: str = "torch"
    pairs_alone: bool = False
    """It takes no upstream gradient, but computes its own DPO loss."""

    bound: bool = False
    """It is a lower bound of the time and gives no result to verify."""

    def absent(self) -> str | None:
        """Why it cannot run here; None where it can."""
        if importlib.util.find_spec(self.module.partition(".")[0]) is None:
            return "not installed"
        try:
            importlib.import_module(self.module)
        except ImportError as error:
            return f"does not import: {error}"
        return None

    def version(self) -> str:
        try:
            return version(self.package)
        except PackageNotFoundError:
            return ""
