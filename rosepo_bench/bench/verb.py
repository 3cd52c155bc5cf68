"""The ``bench`` verb: the engine and its peers side by side, a table of goals, a CSV, a JSON list."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from rosepo_bench import store
from rosepo_bench.bench import goals, table
from rosepo_bench.bench.cases import AnyCase, cases, quick
from rosepo_bench.bench.exact import UnequalError
from rosepo_bench.bench.run import cores, measure, write
from rosepo_bench.bench.table import Row


def bench(
    *, fast: bool, target: Path | None, out: Path, listed: Sequence[AnyCase] | None = None, threads: int | None = None
) -> int:
    """Measures the cases of this machine (``fast``: the quick ones), prints the table of goals and writes ``bench.csv``
    with its plots to ``out`` and the rows to ``target`` as JSON. ``listed`` are other cases to measure.

    Exit status: 0, or 3 where a contestant's numbers were not equal; nothing of that case is timed.
    """
    if listed is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        listed = (quick if fast else cases)(device)
        if device == "cuda":
            listed = [*listed, *(quick if fast else cases)("cpu")]
    rows: list[Row] = []
    unequal: list[goals.Goal] = []
    for number, case in enumerate(listed, 1):
        print(f"[{number}/{len(listed)}] {case.name}", flush=True)
        try:
            found = measure(case, threads=threads or cores()).rows
        except UnequalError as error:
            print(f"error: {error}", file=sys.stderr)
            unequal += [_unequal(case, name, str(error)) for name in case.providers if case.goal_of(name)]
            continue
        rows += found
        if made := goals.goals(found):
            print(goals.markdown(made), flush=True)
    made = sorted([*goals.goals(rows), *unequal], key=lambda one: int(one.goal[1:]))
    print(goals.markdown(made))
    write(rows, out / "bench.csv")
    print(f"written: {out / 'bench.csv'}")
    if target is not None:
        store.write_text(target, json.dumps([one.as_dict() for one in made], indent=1, ensure_ascii=False) + "\n")
        print(f"written: {target}")
    return 3 if unequal else 0


def _unequal(case: AnyCase, provider: str, why: str) -> goals.Goal:
    return goals.Goal(case.goal_of(provider), case.name, provider, None, None, None, None, False, f"not timed: {why}")


def show(path: Path) -> int:
    """Prints the table of goals of a CSV that was written before."""
    print(goals.markdown(goals.goals(table.read(path))), end="")
    return 0
