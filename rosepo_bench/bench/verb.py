"""The ``bench`` verb: the engine and its peers side by side, a table of goals, a CSV, a JSON list."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from rosepo_bench.base import store
from rosepo_bench.base.errors import UserError
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

    Exit status: 0, 3 where a contestant's numbers were not equal (nothing of that case is timed), 130 interrupted.
    """
    _refuse_unwritable(out, target)
    listed = _of_this_machine(fast) if listed is None else listed
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
        except KeyboardInterrupt:
            return _interrupted(f"{number} of {len(listed)}", out / "bench.csv" if rows else None)
        rows += found
        table.write(rows, out / "bench.csv")  # what was measured stays if the rest is interrupted
        if made := goals.goals(found):
            print(goals.markdown(made), flush=True)
    made = goals.in_order([*goals.goals(rows), *unequal])
    print(goals.markdown(made))
    write(rows, out / "bench.csv")
    print(f"written: {out / 'bench.csv'}")
    if target is not None:
        store.write_json(target, [one.as_dict() for one in made])
        print(f"written: {target}")
    return 3 if unequal else 0


def _of_this_machine(fast: bool) -> list[AnyCase]:
    of = quick if fast else cases
    return [*(of("cuda") if torch.cuda.is_available() else []), *of("cpu")]


def _interrupted(where: str, written: Path | None) -> int:
    kept = f"what was measured before is in {written}" if written else "nothing is written"
    print(f"interrupted in case {where}: {kept}; the same command measures everything anew", file=sys.stderr)
    return 130


def _refuse_unwritable(out: Path, target: Path | None) -> None:
    """Before minutes are spent."""
    if target is not None and target.is_dir():
        raise UserError(f"--json {target}: a folder is in the way of the file")
    for folder in (out, *([] if target is None else [target.parent])):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: no folder to write to: {error.strerror}") from error


def _unequal(case: AnyCase, provider: str, why: str) -> goals.Goal:
    return goals.Goal(case.goal_of(provider), case.name, provider, None, None, None, None, False, f"not timed: {why}")


BEGIN, END = "<!-- goals -->\n", "<!-- end of goals -->"
"""What stands around a table in another file."""


def show(path: Path, into: Path | None = None) -> int:
    """The table of goals of the CSV ``path``: printed, or, that of whole calls, put between the marks in the file
    ``into``; what the head alone reaches is too many rows to read there."""
    if not path.is_file():
        raise UserError(f"--table {path}: no such file")
    rows = table.read(path)
    if into is None:
        print(goals.markdown(goals.goals(rows)), end="")
        return 0
    before, after = _around(into)
    store.write_text(into, before + whole_calls(rows) + after)
    print(f"written: {into}")
    return 0


def whole_calls(rows: Iterable[Row]) -> str:
    """The goals that are not the head's alone, as a table."""
    return goals.markdown(goals.goals(row for row in rows if row.work != "head"))


def _around(path: Path) -> tuple[str, str]:
    """What stands before a file's table and after it, marks included."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise UserError(f"--into {path}: it has no lines {BEGIN.strip()} and {END}, between which the table belongs")
    return before + begin, end + after
