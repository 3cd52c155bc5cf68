"""``make mutants``: changes the program on purpose, one wire at a time, and asks the tests which of them notice.

    python tests/mutants/run_mutants.py                 every mutant; writes results/mutants.md
    python tests/mutants/run_mutants.py --sample 90     a seeded sample of about 90 seconds
    python tests/mutants/run_mutants.py --only NAME …   these alone; --list names them

Exit status: 0 all are killed, 1 some are not, 2 the plan does not fit the sources or the tests fail without mutants."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from queue import Queue
from typing import TypeVar

from drawer import drawn
from entries import ROOT, Mutant, Plan, PlanError, by_hand, read
from outcomes import Copy, Outcome, copied
from tabulate import tabulate

T = TypeVar("T")
RESULTS = ROOT / "results" / "mutants.md"
ORDER = ("survived", "timed out", "not valid", "killed")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--sample", metavar="SECONDS", type=float, help="a seeded sample that takes about so long")
    only.add_argument("--only", metavar="NAME", nargs="+", help="these mutants alone")
    only.add_argument("--list", action="store_true", help="the mutants, and run none")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default 0)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="of a full run: mutants at once (default 1)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where a full run is written (results/mutants.md)")
    given = parser.parse_args(arguments)
    if given.jobs < 1 or (given.sample and given.jobs > 1):
        parser.error(f"--jobs {given.jobs}: want 1 or more, and no more than 1 with --sample")
    try:
        plan = read()
        mutants = [*by_hand(plan), *drawn(plan)]
        if given.list:
            print(listed(mutants))
            return 0
        if given.only:
            mutants = named(mutants, given.only)
        began = time.monotonic()
        with ExitStack() as stack:
            copies = [stack.enter_context(copied(plan.stored)) for _ in range(given.jobs)]
            found = list(sampled(mutants, copies[0], plan, given) if given.sample else every(mutants, copies, plan))
    except PlanError as error:
        print(error, file=sys.stderr)
        return 2
    if not given.sample and not given.only:
        given.out.write_text(report(found, time.monotonic() - began), encoding="utf-8")
        print(f"written: {given.out}")
    print(totals(found))
    return int(any(one.result != "killed" for one in found))


def named(mutants: list[Mutant], names: list[str]) -> list[Mutant]:
    """The mutants of these names. PlanError: there is none of one."""
    known = {mutant.name: mutant for mutant in mutants}
    if unknown := [name for name in names if name not in known]:
        raise PlanError(f"there is no mutant {', '.join(map(repr, unknown))}; --list names them")
    return [known[name] for name in names]


def every(mutants: list[Mutant], copies: list[Copy], plan: Plan) -> Iterator[Outcome]:
    """All outcomes, in order; as many mutants run at once as there are copies of the tree."""
    free: Queue[Copy] = Queue()
    for copy in copies:
        free.put(copy)

    def on_a_copy(work: Callable[[Copy], T]) -> T:
        copy = free.get()
        try:
            return work(copy)
        finally:
            free.put(copy)

    tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    works = [partial(Copy.passes, tests=tests[first :: len(copies)]) for first in range(len(copies))]
    with ThreadPoolExecutor(len(copies)) as pool:
        list(pool.map(on_a_copy, [work for work in works if work.keywords["tests"]]))
        outcomes = [partial(Copy.outcome, mutant=mutant, timeout=plan.timeout) for mutant in mutants]
        for number, outcome in enumerate(pool.map(on_a_copy, outcomes), 1):
            yield told(outcome, f"{number}/{len(mutants)}")


def sampled(mutants: list[Mutant], copy: Copy, plan: Plan, given: argparse.Namespace) -> Iterator[Outcome]:
    """Outcomes in a seeded order until the next one would end too late."""
    began, longest = time.monotonic(), 0.0
    passing: set[str] = set()
    for number, mutant in enumerate(random.Random(given.seed).sample(mutants, len(mutants)), 1):
        before = time.monotonic()
        if before - began + longest > given.sample and number > 1:
            return
        if unknown := [test for test in mutant.tests if test not in passing]:
            copy.passes(unknown)
            passing.update(unknown)
        yield told(copy.outcome(mutant, plan.timeout), str(number))
        longest = max(longest, time.monotonic() - before)


def told(outcome: Outcome, number: str) -> Outcome:
    by = f" by {outcome.by}" if outcome.by else ""
    print(f"[{number}] {outcome.mutant.name}: {outcome.result}{by} ({outcome.seconds:.0f} s)", flush=True)
    return outcome


def listed(mutants: list[Mutant]) -> str:
    return tabulate([[one.name, short(one.file), one.breaks] for one in mutants], ["name", "file", "breaks"])


def totals(found: list[Outcome]) -> str:
    """``60 mutants: 50 killed, 10 survived``."""
    counts = {result: sum(one.result == result for one in found) for result in reversed(ORDER)}
    return f"{len(found)} mutants: " + ", ".join(
        f"{n} {result}" for result, n in counts.items() if n or result == ORDER[0]
    )


def report(found: list[Outcome], seconds: float) -> str:
    """The outcomes as Markdown, survivors first."""
    rows = []
    for one in sorted(found, key=lambda one: ORDER.index(one.result)):
        by = short(one.by).partition("[")[0].replace(".py", "") or f"**{one.result}**"
        rows.append([cell(text) for text in (one.mutant.name, short(one.mutant.file), one.mutant.breaks, by)])
    kinds = [[one for one in found if one.mutant.drawn == by_chance] for by_chance in (False, True)]
    return "\n".join(
        [
            "# Mutants: which wires the tests hold",
            "",
            "`make mutants` changes the program in one place at a time and runs the tests that should notice, without",
            "those that compare with stored outputs: they say that something changed, not that it was right.",
            "",
            f"{totals(found)}; {seconds / 60:.0f} minutes.",
            f"By hand: {totals(kinds[0])}. Drawn: {totals(kinds[1])}.",
            "",
            tabulate(rows, ["mutant", "file", "what it breaks", "killed by"], tablefmt="pipe", disable_numparse=True),
            "",
        ]
    )


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def short(path: str) -> str:
    """A path without what all have in common."""
    return path.removeprefix("rosepo_bench/").removeprefix("tests/")


if __name__ == "__main__":
    sys.exit(main())
