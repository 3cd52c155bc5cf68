"""What results may depend on besides the configuration: versions, processor, threads, compiled library."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rosepo_bench.base.errors import UserError

PACKAGES = ("rosepo_bench", "torch", "transformers", "peft", "tokenizers", "numpy", "scipy")


def facts() -> dict[str, Any]:
    """The environment as JSON values, for records and for `env`."""
    import torch

    from rosepo_bench.engine.ops import library

    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "waiting": {name: os.environ.get(name) for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")},
        "torch_isa": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "library": library.info(),
        "forest": _forest(),
    }


def _forest() -> dict[str, str | None]:
    """``state`` of the forest's module: ``loaded``, or why it is not and what to do; and its build id if loaded."""
    from rosepo_bench.engine import forest

    try:
        forest.native()
        return {"state": "loaded", "build_id": forest.build_id()}
    except UserError as error:
        return {"state": str(error), "build_id": None}


def _version(name: str) -> str | None:
    # A package is not imported only to ask for its version.
    module = sys.modules.get(name)
    if module is not None and hasattr(module, "__version__"):
        return str(module.__version__)
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
