"""Leases: one process at a time does a piece of work, among all processes and machines that share a folder.

A lease is a file that names its holder, there as long as it is held. The holder locks it (``flock``), so that on one
machine a killed holder is noticed at once, and refreshes its time every ``BEAT`` seconds, so that another machine
notices it after ``STALE`` seconds without a refresh, by its own clock.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from rosepo_bench.base import progress, signals
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.store import explained, plain_file

BEAT = 10.0  # seconds between refreshes
STALE = 120.0  # above what network file systems keep a file's time in their caches
_POLLS = (0.05, 1.0)  # seconds between two looks at a lease that is held: first, longest


class Lease:
    """``with Lease(path, "steam.sft"): …`` waits until nobody else holds the lease at ``path`` and says for whom it
    waits. Within one process it must not be taken twice. ``stale`` is in seconds."""

    def __init__(self, path: Path, what: str, *, stale: float = STALE) -> None:
        self.path, self.what, self.stale = path, what, stale
        self._file: IO[str] | None = None
        self._stop = threading.Event()
        self._seen: tuple[int, float] = (-1, 0.0)  # time of the last refresh, and when we first saw it

    def __enter__(self) -> Lease:
        try:
            with signals.held():  # but while it waits
                self._wait()
        except signals.Ended:
            if self._file is not None:
                self.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _wait(self) -> None:
        pause, told = _POLLS[0], ""
        while not self.attempt():
            with signals.released():
                holder = describe(self.path)
                if holder and holder != told:
                    progress.say(f"  waiting for {self.what}: {holder}")
                    told = holder
                time.sleep(pause)
            pause = min(1.5 * pause, _POLLS[1])

    def attempt(self) -> bool:
        """Takes the lease if nobody holds it; returns whether it did. UserError: what stands there is no lease."""
        assert self._file is None, "taken twice"
        with explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._create()
            if self._file is None and self._remove_dead():
                self._file = self._create()
        if self._file is None:
            return False
        self._stop = threading.Event()
        threading.Thread(target=_beat, args=(os.dup(self._file.fileno()), self._stop), daemon=True).start()
        return True

    def release(self) -> None:
        """Gives the lease back; another's lease, which replaced ours while this process slept, stays."""
        assert self._file is not None, "released without being taken"
        with signals.held():
            self._stop.set()
            if _same(self.path, self._file):
                self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None

    def _create(self) -> IO[str] | None:
        """Makes and locks the file; None where one is there already. Unlocked it has no text and counts as alive."""
        try:
            file = self.path.open("x+", encoding="utf-8")
        except FileExistsError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            json.dump({"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid()}, file)
            file.flush()
        except BaseException:
            self.path.unlink(missing_ok=True)
            file.close()
            raise
        return file

    def _remove_dead(self) -> bool:
        """Removes the file of a holder that has died. Its lock is ours meanwhile, so that nobody here does the same."""
        try:
            file = _open(self.path)
        except FileNotFoundError:
            return True
        with file:
            dead = _lock(file) and _same(self.path, file) and (_local(file) or self._unrefreshed(file))
            if dead:
                self.path.unlink(missing_ok=True)
            return dead

    def _unrefreshed(self, file: IO[str]) -> bool:
        """Whether ``stale`` seconds have passed since we first saw the file with the time that it has."""
        refreshed, now = os.fstat(file.fileno()).st_mtime_ns, time.monotonic()
        if refreshed != self._seen[0]:
            self._seen = (refreshed, now)
        return now - self._seen[1] >= self.stale


def held(path: Path) -> bool:
    """Whether somebody seems to hold the lease at ``path``; may be wrong a moment later."""
    try:
        with _open(path) as file:
            return not _lock(file) or not (_local(file) or time.time() - os.fstat(file.fileno()).st_mtime > STALE)
    except (OSError, UserError):
        return os.path.lexists(path)


def describe(path: Path) -> str:
    """Who holds the lease, for messages; empty if nobody does."""
    try:
        with _open(path) as file:
            holder = _holder(file)
    except (OSError, UserError):
        return ""
    return f"held by pid {holder['pid']} on {holder['host']}" if holder else ""


def _open(path: Path) -> IO[str]:
    """The lease at ``path``, to be read and locked. UserError: no file, which nobody will ever give back."""
    with explained(path):
        return os.fdopen(plain_file(path, os.O_RDWR | os.O_NOFOLLOW), "r+", encoding="utf-8")


def _beat(handle: int, stop: threading.Event) -> None:
    """Refreshes the open file's time until ``stop``, then closes it."""
    try:
        while not stop.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(handle)
    finally:
        os.close(handle)


def _holder(file: IO[str]) -> dict[str, Any]:
    """What the file says; empty before its holder has written it."""
    file.seek(0)
    try:
        facts = json.load(file)
    except (ValueError, RecursionError):
        return {}
    named = isinstance(facts, dict) and all(isinstance(facts.get(name), str) for name in ("host", "machine"))
    return facts if named and isinstance(facts.get("pid"), int) and facts["host"].isprintable() else {}


def _local(file: IO[str]) -> bool:
    """Whether the holder ran on this machine, where a free lock means that it is dead."""
    return _holder(file).get("machine") == _machine()


@functools.cache
def _machine() -> str:
    """Names this machine since its start: locks are seen by all processes of one kernel."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return socket.gethostname()


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same(path: Path, file: IO[str]) -> bool:
    """Whether ``path`` leads to the open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
