"""Standard input, output and errors, whatever the shell has made of them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator


class LostOutput(BaseException):
    """Standard output takes nothing more: its reader has left or its disk is full. No Exception: no work has failed,
    and what handles failures lets it pass."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror)
        self.unread = isinstance(error, BrokenPipeError)


class _Output(io.TextIOWrapper):
    """Standard output that says when it is lost."""

    def write(self, text: str) -> int:
        with _noticed():
            return super().write(text)

    def flush(self) -> None:
        with _noticed():
            super().flush()


def prepare() -> None:
    """Makes the three streams usable. A closed one leads nowhere (else the next file that is opened would take its
    place, and receive what libraries print there). A character that the terminal lacks is written as ``\\u03b2``.
    Standard output raises LostOutput; where a test stands in its place it is only told about such characters."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            os.set_inheritable(number, True)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False, encoding="utf-8")
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False, encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False, encoding="utf-8")
    out = sys.stdout
    if type(out) is io.TextIOWrapper and out is sys.__stdout__:
        sys.stdout = _Output(out.buffer, out.encoding, line_buffering=out.line_buffering)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def tell(text: str) -> None:
    """Writes a line to standard error; where that is lost too, nobody is there to hear it."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def drop() -> None:
    """Drops what standard output still holds if it cannot be written, so that nothing complains of it on exit."""
    try:
        sys.stdout.flush()
    except (LostOutput, OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def _noticed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LostOutput(error) from error
