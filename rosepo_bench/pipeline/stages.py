"""Shared work, computed once: a stage is named by the hash of everything that can change its result."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from rosepo_bench import __version__
from rosepo_bench.base import progress, store
from rosepo_bench.base.seeds import digest

T = TypeVar("T")

# Packages whose code can change a stage's result; report, runs and commands cannot.
COMPUTING = ("base", "losses", "data", "engine", "recommenders", "preference", "evaluation", "pipeline")


@functools.cache
def code_digest() -> str:
    """sha256 over the sources of ``COMPUTING``: when they change, earlier results no longer count."""
    root = Path(__file__).resolve().parents[1]
    paths = [path for name in COMPUTING for path in (root / name).rglob("*.py")]
    return digest(__version__, *(part for path in sorted(paths) for part in (path.name, path.read_bytes())))


@dataclass(frozen=True)
class Stage(Generic[T]):
    """One piece of shared work. ``compute(folder, work)`` fills ``folder``; the folder ``work`` holds checkpoints
    and survives a killed process. ``read(folder)`` returns the result. The key depends on ``inputs`` (JSON values) and
    the parents' keys."""

    name: str
    inputs: Any
    parents: tuple[Stage[Any], ...]
    compute: Callable[[Path, Path], None] = field(compare=False)
    read: Callable[[Path], T] = field(compare=False)

    @cached_property
    def key(self) -> str:
        """sha256 over name, inputs, parents' keys and the computing code."""
        return digest(self.name, code_digest(), self.inputs, [parent.key for parent in self.parents])

    @property
    def label(self) -> str:
        """The folder's name."""
        return f"{self.name}-{self.key[:16]}"


class StageFailedError(RuntimeError):
    """The stage failed earlier in this run; cells that need it fail without another attempt."""


class Stages:
    """The stages of one output folder: on disk by key, in memory once read."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._values: dict[str, Any] = {}
        self._failed: dict[str, str] = {}

    def folder(self, stage: Stage[Any]) -> Path:
        """The folder of the stage's result, whether it exists or not."""
        return self.out / "stages" / stage.label

    def done(self, stage: Stage[Any]) -> bool:
        return self.folder(stage).is_dir()

    def get(self, stage: Stage[T]) -> T:
        """The stage's result: from memory, from disk, or computed now."""
        if stage.key not in self._values:
            if not self.done(stage):
                self._run(stage)
            self._values[stage.key] = stage.read(self.folder(stage))
        value: T = self._values[stage.key]
        return value

    def _run(self, stage: Stage[Any]) -> None:
        if stage.key in self._failed:
            raise StageFailedError(f"{stage.name} failed earlier: {self._failed[stage.key]}")
        for parent in stage.parents:
            self.get(parent)
        work = self.out / "work" / stage.label
        work.mkdir(parents=True, exist_ok=True)
        progress.say(f"  {stage.name}")
        try:
            with store.atomic_folder(self.folder(stage)) as folder:
                stage.compute(folder, work)
        except Exception as error:
            self._failed[stage.key] = f"{type(error).__name__}: {error}"
            raise
        shutil.rmtree(work)
