"""Signals that end the program: Ctrl-C (SIGINT), SIGTERM and SIGHUP.

The first one raises :class:`Ended` in the main thread: at once, or, where that would leave work half done, at the end
of a :func:`held` block. A second one ends the process on the spot.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ONE = 0.2  # seconds within which several signals count as one: `timeout` and shells send theirs twice
_WAITING = b"\nending after this step; the same signal again ends at once\n"

_catching = False
_held = False
_arrived = 0  # the first signal's number
_when = 0.0
_pending = False  # it has arrived, and Ended was not raised yet
_again = False  # Ended was raised where Python drops what is raised; the signal comes again


class Ended(KeyboardInterrupt):
    """The program was asked to end by a signal. No Exception: what handles failures lets it pass."""


def arrived() -> int:
    """The number of the signal that asked the program to end; 0: none did."""
    return _arrived


def check() -> None:
    """Raises Ended if a signal has arrived, within a :func:`held` block too: a point at which nothing is lost."""
    if _catching and _arrived:
        _end()


@contextlib.contextmanager
def caught() -> Iterator[None]:
    """Within the block the signals raise Ended. Those that the caller ignores (``nohup``) stay ignored. In another than
    the main thread, which alone receives signals, nothing changes."""
    global _arrived, _pending, _again, _catching
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _arrived, _pending, _again, _catching = 0, False, False, True
    before = {number: signal.getsignal(number) for number in ENDING}
    ours = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    hook = sys.unraisablehook
    sys.unraisablehook = functools.partial(_dropped, hook)
    try:
        for number in ours:
            signal.signal(number, _arrive)
        yield
    finally:
        _catching = False
        sys.unraisablehook = hook
        for number, handler in ours.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """A signal that arrives within the block raises Ended at its end."""
    with _holding(True):
        yield
    if _catching and _pending and not _held:
        _end()


@contextlib.contextmanager
def released() -> Iterator[None]:
    """Within a :func:`held` block, a part in which a signal raises Ended at once."""
    with _holding(False):
        check()
        yield


@contextlib.contextmanager
def _holding(value: bool) -> Iterator[None]:
    global _held
    before, _held = _held, value
    try:
        yield
    finally:
        _held = before


def _end() -> None:
    global _pending
    _pending = False
    raise Ended


def _arrive(number: int, frame: FrameType | None) -> None:
    global _arrived, _when, _pending, _again
    if not _arrived:
        _arrived, _when, _pending = number, time.monotonic(), True
        if _held:
            with contextlib.suppress(OSError):
                os.write(2, _WAITING)  # not print: the handler may have interrupted one
    elif _again:
        _again = False
    elif time.monotonic() - _when > ONE:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    if _pending and not _held:
        _end()


def _dropped(hook: Callable[[sys.UnraisableHookArgs], object], what: sys.UnraisableHookArgs) -> None:
    """Called where Python drops what is raised, such as in a ``__del__``: the signal comes again in a moment."""
    global _pending, _again
    if isinstance(what.exc_value, Ended):
        _pending = _again = True
        threading.Timer(0.01, os.kill, (os.getpid(), _arrived)).start()
    else:
        hook(what)
