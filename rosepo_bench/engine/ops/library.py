"""Finds, checks and loads the compiled operators (csrc/, built by setup.py into this folder)."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

import torch

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.ops.build_id import source_hash

# ROSEPO_LIBRARY names a library built elsewhere (see tests/sanitize.py); it is checked like this package's own.
LIBRARY = Path(os.environ.get("ROSEPO_LIBRARY") or Path(__file__).with_name("librosepo.so"))
_MARK = re.compile(rb"rosepo-build-id:([0-9a-f]{16})-([0-9a-f]{8})\0")
_REBUILD = "run `make build`, or `pip install --no-build-isolation --no-deps -e .` in the checkout"


def verify(library: Path, csrc: Path | None) -> str:
    """The build id ``<sources>-<flags>`` inside ``library``, read from its bytes before any of its code runs.

    With ``csrc`` (a checkout) the library must have been built from exactly these sources. Raises :class:`UserError`
    where it was not, is missing, or is not this package's library.
    """
    if not library.is_file():
        raise UserError(f"the compiled operators are not built ({library} is not there): {_REBUILD}")
    found = _MARK.search(library.read_bytes())
    if found is None:
        raise UserError(f"{library} carries no build id, so it is not this package's library: {_REBUILD}")
    sources, flags = (part.decode() for part in found.groups())
    if csrc is not None:
        wanted = source_hash(csrc)
        if sources != wanted:
            raise UserError(
                f"{library} was built from other sources ({sources}) than {csrc} holds ({wanted}): {_REBUILD}"
            )
    return f"{sources}-{flags}"


def checkout() -> Path | None:
    """The folder of the C++ sources if the package runs from a checkout; None if it is installed."""
    root = Path(__file__).resolve().parents[3]
    return root / "csrc" if (root / "setup.py").is_file() and (root / "csrc").is_dir() else None


@functools.cache
def load() -> dict[str, str]:
    """Loads the operators into ``torch.ops.rosepo``, once, and returns what the library reports of its build.

    Raises :class:`UserError` where it is missing or stale, does not load with this torch, or does not support
    ``ROSEPO_CPU_ISA`` here.
    """
    build_id = verify(LIBRARY, checkout())
    try:
        torch.ops.load_library(str(LIBRARY))
    except OSError as error:
        reason = error.__cause__ or error  # torch's own message omits the linker's
        raise UserError(f"{LIBRARY} does not load with torch {torch.__version__}: {reason}") from error
    try:
        text: str = torch.ops.rosepo.build_info()
    except RuntimeError as error:
        raise UserError(str(error).partition("\n")[0]) from None
    facts = dict(line.split("=", 1) for line in text.splitlines())
    if facts["build_id"] != build_id:
        raise UserError(f"{LIBRARY} runs as build {facts['build_id']}, its bytes say {build_id}: {_REBUILD}")
    return facts


def info() -> dict[str, str | None]:
    """What ``env`` prints. ``state`` is ``loaded``, or why the library is not; the rest is None then.

    ``isa``: the x86-64 level of the CPU kernels that run (set ``ROSEPO_CPU_ISA`` before the first load to choose).
    ``cuda``: the architectures compiled in, ``none`` for a CPU-only build. ``torch_target``: the oldest torch that the
    library runs on.
    """
    facts: dict[str, str] = {}
    try:
        facts = load()
        state = "loaded"
    except UserError as error:
        state = str(error)
    names = ("build_id", "isa", "cuda", "compiler", "torch_target")
    return {"state": state, **{name: facts.get(name) for name in names}}
