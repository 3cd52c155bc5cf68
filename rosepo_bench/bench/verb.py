"""The ``bench`` verb: measures the engine and its peers, prints a table of goals, writes a CSV and a JSON list."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from rosepo_bench.base import store
from rosepo_bench.base.errors import UserError
from rosepo_bench.bench import busy, goals, table
from rosepo_bench.bench.cases import AnyCase, cases, quick
from rosepo_bench.bench.exact import UnequalError
from rosepo_bench.bench.run import cores, measure, write
from rosepo_bench.bench.table import Row


def bench(
    *, fast: bool, target: Path | None, out: Path, listed: Sequence[AnyCase] | None = None, threads: int | None = None
) -> int:
    """Measures the cases of this machine (``fast``: the quick ones), prints the table of goals and writes ``bench.csv``
    with its plots to ``out`` and the goals to ``target`` as JSON. ``listed``: cases to measure instead.

    Exit status: 0; 3 where a contestant's numbers were wrong (nothing of that case is timed); 130 where interrupted.
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


def beside_load(*, out: Path) -> int:
    """Times a training step alone and beside busy processes, prints the table and writes ``busy.csv`` to ``out``.
    Exit status as of :func:`bench`; where interrupted, nothing is written."""
    _refuse_unwritable(out, None)
    try:
        rows = busy.measure(threads=cores())
    except UnequalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    print(busy.markdown(rows), end="")
    table.write(rows, out / "busy.csv")
    print(f"written: {out / 'busy.csv'}")
    return 0


def _of_this_machine(fast: bool) -> list[AnyCase]:
    of = quick if fast else cases
    return [*(of("cuda") if torch.cuda.is_available() else []), *of("cpu")]


def _interrupted(where: str, written: Path | None) -> int:
    kept = f"what was measured before is in {written}" if written else "nothing is written"
    print(f"interrupted in case {where}: {kept}; the same command starts again from the first case", file=sys.stderr)
    return 130


def _refuse_unwritable(out: Path, target: Path | None) -> None:
    """Raises UserError, before minutes of measuring, where the results could not be written."""
    if target is not None and target.is_dir():
        raise UserError(f"--json {target}: this is a folder; give the path of a file")
    for folder in (out, *([] if target is None else [target.parent])):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: the folder cannot be made ({error.strerror}); give another one") from error


def _unequal(case: AnyCase, provider: str, why: str) -> goals.Goal:
    return goals.Goal(case.goal_of(provider), case.name, provider, None, None, None, None, False, f"not timed: {why}")


BEGIN, END = "<!-- goals -->\n", "<!-- end of goals -->"
"""The lines around the table in another file."""


def show(path: Path, into: Path | None = None) -> int:
    """Prints the table of goals of the CSV ``path``; or, with ``into``, writes it between the marks of that file,
    without the benchmarks of the head alone, which are too many rows to read there."""
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
    """The goals of whole calls as a table, without those of the head alone."""
    return goals.markdown(goals.goals(row for row in rows if row.work != "head"))


def _around(path: Path) -> tuple[str, str]:
    """The text before and after a file's table, marks included."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise UserError(f"--into {path}: lacks the lines {BEGIN.strip()} and {END}; add them where the table belongs")
    return before + begin, end + after
