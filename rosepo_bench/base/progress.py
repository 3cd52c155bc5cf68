"""Progress output: a live bar with rate and time left on a terminal, an occasional plain line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import TaskID


class Reporter(Protocol):
    """Shows progress. ``advance`` may be called thousands of times a second."""

    def say(self, text: str) -> None: ...
    def advance(self, label: str, done: int, total: int) -> None: ...


class Silent:
    """Shows nothing: the default outside the command line."""

    def say(self, text: str) -> None:
        return None

    def advance(self, label: str, done: int, total: int) -> None:
        return None


class Lines:
    """For logs: a line when a task starts making progress, and every ``every`` seconds after that."""

    def __init__(self, every: float = 15.0) -> None:
        self.every = every
        self.started: dict[str, tuple[float, int]] = {}
        self.last = time.monotonic()

    def say(self, text: str) -> None:
        print(text, flush=True)

    def advance(self, label: str, done: int, total: int) -> None:
        now = time.monotonic()
        start, first = self.started.setdefault(label, (now, done))
        if done >= total:
            self.started.pop(label)
            return
        if now - self.last >= self.every and done > first:
            rate = (done - first) / (now - start)
            self.say(f"  {label}: {done}/{total} steps, {rate:.1f}/s, {(total - done) / rate:.0f} s left")
            self.last = now


class Bars:
    """For terminals: rich's bars, removed when their task is complete."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            transient=True,
            auto_refresh=False,  # by a thread of its own, whose errors nobody could answer
        )
        self.drawn = 0.0
        self.tasks: dict[str, tuple[TaskID, float, int]] = {}

    def say(self, text: str) -> None:
        self.progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def advance(self, label: str, done: int, total: int) -> None:
        if label not in self.tasks:
            task = self.progress.add_task(label, total=total, completed=done, rate="")
            self.tasks[label] = (task, time.monotonic(), done)
        number, start, first = self.tasks[label]
        rate = (done - first) / max(time.monotonic() - start, 1e-9)
        self.progress.update(number, completed=done, rate=f"{rate:.1f}/s")
        if done >= total:
            self.progress.remove_task(self.tasks.pop(label)[0])
        if done >= total or time.monotonic() - self.drawn >= 0.1:
            self.progress.refresh()
            self.drawn = time.monotonic()


_current: Reporter = Silent()


def say(text: str) -> None:
    """Prints one line about the current work."""
    _current.say(text)


def advance(label: str, done: int, total: int) -> None:
    """Reports ``done`` of ``total`` steps of the task ``label``."""
    _current.advance(label, done, total)


@contextmanager
def shown() -> Iterator[None]:
    """Shows progress within the block: bars on a terminal, lines elsewhere."""
    global _current
    before = _current
    try:
        if sys.stdout.isatty():
            bars = Bars()
            _current = bars
            with bars.progress:
                yield
        else:
            _current = Lines()
            yield
    finally:
        _current = before
