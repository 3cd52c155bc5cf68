"""Runs of the command line for tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

MICRO = Path(__file__).with_name("micro.toml")
VOLATILE = ("throughput", "environment", "created", "sha256")

TIMES = (
    *("seconds", "session_seconds", "validation_seconds", "of_step_seconds", "tokens_per_s", "pairs_per_s"),
    *("peak_memory_bytes", "peak_memory_since", "threads", "tokens"),
)  # of a training; tokens are those of the process that ended it


def command(verb: str, out: Path, *arguments: str) -> list[str]:
    """The command line of one verb on the micro profile."""
    return [
        *(sys.executable, "-m", "rosepo_bench", verb, "--profile", str(MICRO), "--out", str(out)),
        *("--cache-dir", str(out / "cache"), "--offline", *arguments),
    ]


def call(verb: str, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs it to its end."""
    return subprocess.run(command(verb, out, *arguments), capture_output=True, text=True, timeout=300, check=False)


def results(out: Path, protocol: str = "") -> dict[str, tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Everything that identical runs must agree on: records without timings and machine, and predictions, those of
    ``protocol`` where one is given."""
    found = {}
    for path in sorted((out / "records").glob("*/*/*/record.json")):
        record = json.loads(path.read_text())
        predictions = {}
        for name, told in record["evaluations"].items():
            if protocol not in ("", name):
                continue
            with np.load(path.with_name(told["predictions"]["file"])) as arrays:
                predictions |= {name: arrays[name] for name in arrays.files}
        kept = {key: value for key, value in record.items() if key not in VOLATILE}
        for name in TIMES:
            (kept["training"] or {}).pop(name, None)
        found[f"{record['dataset']}/{record['method']}/{record['seed']}"] = (kept, predictions)
    return found


def assert_same(one: Path, two: Path) -> None:
    """Both folders hold the same results, to the last bit."""
    first, second = results(one), results(two)
    assert first.keys() == second.keys()
    assert first
    for cell, (record, predictions) in first.items():
        assert record == second[cell][0], cell
        for name, values in predictions.items():
            np.testing.assert_array_equal(values, second[cell][1][name], err_msg=f"{cell} {name}")
