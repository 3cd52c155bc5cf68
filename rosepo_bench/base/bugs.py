"""What is left of an error that nobody foresaw: a file with all that a report of it needs."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from rosepo_bench import __version__

PACKAGES = ("torch", "numpy", "transformers", "tokenizers", "pydantic", "safetensors")


def write(error: BaseException, arguments: Sequence[str], folder: Path | None) -> Path | None:
    """Writes command, versions and traceback to a new file in ``folder``, or, where there is none or nothing can be
    written, in the folder for temporary files; None: not there either."""
    text = "\n".join(_told(error, arguments))
    for place in (folder, Path(tempfile.gettempdir())):
        if place is None or not place.is_dir():
            continue
        try:
            handle, name = tempfile.mkstemp(prefix="bug-", suffix=".txt", dir=place)
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        return Path(name)
    return None


def _told(error: BaseException, arguments: Sequence[str]) -> Iterator[str]:
    yield f"command: {shlex.join(['python', '-m', 'rosepo_bench', *arguments])}"
    yield f"rosepo_bench {__version__}, Python {sys.version}"
    yield f"{platform.platform()}, {os.cpu_count()} processors"
    for name in PACKAGES:
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield f"{name}: not installed"
    yield ""
    yield "".join(traceback.format_exception(error))
