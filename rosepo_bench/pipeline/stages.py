"""Shared work, computed once: a stage is named by the hash of everything that can change its result. A finished stage
is a folder with a manifest, verified before it is read; a stage is computed under a lease, so that several processes
and machines can share one output folder."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from rosepo_bench import __version__
from rosepo_bench.base import closure, manifest, progress, store
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.lease import Lease
from rosepo_bench.base.seeds import digest

T = TypeVar("T")


@dataclass(frozen=True)
class Stage(Generic[T]):
    """One piece of shared work. ``compute(folder, work)`` fills ``folder``; the folder ``work`` holds checkpoints
    and survives a killed process. ``read(folder)`` returns the result. The key depends on ``inputs`` (JSON values), the
    parents' keys and the code: all that the modules of ``compute``, of ``read`` and of the objects in ``code`` import
    (see ``base/closure.py``). ``code`` names what these modules do not import, such as a plugin's components."""

    name: str
    inputs: Any
    parents: tuple[Stage[Any], ...]
    compute: Callable[[Path, Path], None] = field(compare=False)
    read: Callable[[Path], T] = field(compare=False)
    code: tuple[object, ...] = field(default=(), compare=False)

    @cached_property
    def key(self) -> str:
        """sha256 over name, inputs, parents' keys and the computing code."""
        code = closure.code_digest(self.modules)
        return digest(__version__, self.name, self.inputs, [parent.key for parent in self.parents], code)

    @property
    def modules(self) -> frozenset[str]:
        """The modules that the code is searched from."""
        return closure.modules(self.compute, self.read, *self.code)

    @property
    def label(self) -> str:
        """The folder's name."""
        return f"{self.name}-{self.key[:16]}"


class StageFailedError(RuntimeError):
    """The stage failed earlier in this run; cells that need it fail without another attempt."""


@dataclass(frozen=True)
class Absent:
    """What a stage without a whole result on disk is read as; ``reason`` says what is broken, if one is there."""

    reason: str = ""


class Stages:
    """The stages of one output folder: on disk by key, in memory once read."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._values: dict[str, Any] = {}
        self._failed: dict[str, str] = {}

    def folder(self, stage: Stage[Any]) -> Path:
        """The folder of the stage's result, whether it exists or not."""
        return self.out / "stages" / stage.label

    def work(self, stage: Stage[Any]) -> Path:
        """The folder of the stage's checkpoints, whether it exists or not."""
        return self.out / "work" / stage.label

    def lease(self, stage: Stage[Any]) -> Lease:
        """Admits one process to the stage's folders."""
        return Lease(self._lease_path(stage.label), stage.name)

    def _lease_path(self, label: str) -> Path:
        return self.out / "leases" / "stages" / label

    def done(self, stage: Stage[Any]) -> bool:
        """Whether the stage seems to be finished; :meth:`get` verifies it."""
        return (self.folder(stage) / manifest.NAME).is_file()

    def get(self, stage: Stage[T]) -> T:
        """The stage's result: from memory, from disk, or computed now."""
        if stage.key not in self._values or not self.done(stage):  # evicted, and a result may be a path
            value = self._read(stage)
            self._values[stage.key] = self._computed(stage) if isinstance(value, Absent) else value
        kept: T = self._values[stage.key]
        return kept

    def stored(self, stage: Stage[T]) -> T | None:
        """The stage's result if it is on disk and whole; never computes."""
        value = self._read(stage)
        return None if isinstance(value, Absent) else value

    def _read(self, stage: Stage[T]) -> T | Absent:
        """Reads the folder's result after its files have been verified."""
        folder = self.folder(stage)
        if not os.path.lexists(folder):
            return Absent()
        try:
            with store.explained(folder):
                manifest.verify(folder, stage.key)
                value = stage.read(folder)
        except (manifest.BrokenError, UserError, FileNotFoundError) as error:
            return Absent(f"{error} ({folder})")
        manifest.touch(folder)
        return value

    def _computed(self, stage: Stage[T]) -> T:
        """Computes the stage, unless another process finishes it meanwhile, and reads it."""
        if stage.key in self._failed:
            raise StageFailedError(f"{stage.name} failed earlier: {self._failed[stage.key]}")
        for parent in stage.parents:
            self.get(parent)
        with self.lease(stage):
            value = self._read(stage)
            if not isinstance(value, Absent):
                return value
            if value.reason:
                progress.say(f"  {stage.name}: the stored result is broken and is computed again: {value.reason}")
            try:
                self._compute(stage)
                return stage.read(self.folder(stage))
            except Exception as error:
                self._failed[stage.key] = f"{type(error).__name__}: {error}"
                raise

    def _compute(self, stage: Stage[Any]) -> None:
        work = self.work(stage)
        if work.is_symlink() or not work.is_dir():  # a checkpoint is never written to where a link leads
            store.remove(work)
        with store.explained(work):
            work.mkdir(parents=True, exist_ok=True)
        resumed = any(work.iterdir())
        progress.say(f"  {stage.name}")
        try:
            self._fill(stage, work, resumed)
        except store.DamagedError as error:
            if not resumed:
                raise
            progress.say(f"  {stage.name}: what is stored of its interrupted run is broken; it starts over: {error}")
            store.remove(work)
            work.mkdir()
            self._fill(stage, work, resumed=False)
        shutil.rmtree(work, ignore_errors=True)

    def _fill(self, stage: Stage[Any], work: Path, resumed: bool) -> None:
        """Computes the stage into its folder."""
        with store.atomic_folder(self.folder(stage)) as folder:
            began = time.monotonic()
            stage.compute(folder, work)
            seconds = None if resumed else round(time.monotonic() - began, 3)
            facts = {"name": stage.name, "key": stage.key, "inputs": stage.inputs, "seconds": seconds}
            manifest.write(folder, {**facts, "parents": [parent.key for parent in stage.parents]})

    def forget(self, stage: Stage[Any]) -> None:
        """Removes the stage's result and checkpoints; waits for a process that computes it."""
        with self.lease(stage):
            self._values.pop(stage.key, None)
            for folder in (self.folder(stage), self.work(stage)):
                store.remove(folder)

    def measured(self) -> dict[str, float]:
        """Median seconds that the folder's finished stages took, by their names. Those that were interrupted and went
        on do not count."""
        seconds = defaultdict[str, list[float]](list)
        for _, facts in manifest.every(self.out / "stages"):
            if isinstance(facts.get("seconds"), int | float):
                seconds[facts["name"]].append(facts["seconds"])
        return {name: statistics.median(found) for name, found in sorted(seconds.items())}

    def evict(self, limit_bytes: float, keep: Collection[str]) -> None:
        """Removes finished stages, least recently read first, until all fit into ``limit_bytes``. Stages whose keys are
        in ``keep``, and those that a process holds, stay even if they do not fit."""
        found = list(manifest.every(self.out / "stages"))
        total = sum(manifest.size(facts) for _, facts in found)
        for folder, facts in sorted(found, key=lambda entry: manifest.last_read(entry[0])):
            if total <= limit_bytes:
                return
            if facts["key"] not in keep and self._remove(folder):
                size = manifest.size(facts)
                progress.say(f"  removed {folder.name} ({size / 2**20:.1f} MiB): the stages exceed their limit")
                total -= size

    def _remove(self, folder: Path) -> bool:
        """Removes a finished stage's folder, unless a process holds it; returns whether it did."""
        lease = Lease(self._lease_path(folder.name), folder.name)
        if not lease.attempt():
            return False
        try:
            (folder / manifest.NAME).unlink(missing_ok=True)  # first: what a kill leaves must not look finished
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            lease.release()
        return True


def kind(name: str) -> str:
    """A stage's name without its data set."""
    return name.partition(".")[2] or name
