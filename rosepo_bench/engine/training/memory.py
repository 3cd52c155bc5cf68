"""Peak memory of a piece of work: the GPU's allocations, or the process's resident set on Linux."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path
from typing import Any

import torch


class PeakMemory:
    """``bytes`` is the peak within the block. On a CPU this is the resident set of the whole process, whose high-water
    mark Linux resets on request; where that fails, ``since`` says that the peak counts from the process's start."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes = 0
        self.since = "block"

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            try:
                Path("/proc/self/clear_refs").write_text("5")
            except OSError:
                self.since = "process start"
        return self

    def __exit__(self, *error: object) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)
        else:
            self.bytes = _high_water()

    def report(self) -> dict[str, Any]:
        """The peak and since when it counts, in the form that stages and records store."""
        return {"peak_memory_bytes": self.bytes, "peak_memory_since": self.since}


def _high_water() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
