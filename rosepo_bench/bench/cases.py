"""The list of benchmarks. `pytest --benchmark` and the `bench` verb run these, with one timer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from rosepo_bench.bench.exact import Exact, exact
from rosepo_bench.bench.head import MODES, Head, Result, Size, draw
from rosepo_bench.bench.list_cases import ListCase, list_cases
from rosepo_bench.bench.peer import OURS, Peer
from rosepo_bench.bench.peers import PEERS, PRODUCTS
from rosepo_bench.bench.timer import Call, Pace


class Contest(Protocol):
    """A case with its inputs drawn: the contestants' calls, and the numbers that each call must give."""

    def call(self, provider: str) -> Call: ...

    def verify(self, provider: str, result: object) -> bool:
        """Checks a result. False where there is none to check; raises :class:`UnequalError` where it is wrong."""
        ...

    def bound(self, provider: str) -> float | None:
        """What our time over that of ``provider`` would be by token counts alone; None without such a count."""
        ...


@dataclass(frozen=True)
class Case:
    """One setting of the head. ``measures``: ``time``, ``memory`` or both; ``allocator``: the malloc settings of the
    process (``fresh.ALLOCATORS``); ``goal``: the goal that its ratios count for; ``routine``: ``pytest --benchmark``
    runs it; ``quick``: its contestants in the quick run of the ``bench`` verb, which skips the case without any."""

    size: Size
    mode: str
    providers: tuple[str, ...]
    measures: tuple[str, ...] = ("time",)
    allocator: str = "default"
    pace: Pace = field(default_factory=Pace)
    goal: str = ""
    routine: bool = True
    quick: tuple[str, ...] = ()

    work = "head"
    x_name = "rows"

    @property
    def name(self) -> str:
        size = self.size
        kept = "" if self.allocator == "default" else f" {self.allocator}"
        what = "" if "time" in self.measures else " memory"
        shape = f"{size.rows}x{size.hidden}x{size.vocabulary}"
        return f"{self.work} {self.mode} {shape} {size.dtype} {size.device}{kept}{what}"

    @property
    def x(self) -> int:
        return self.size.rows

    @property
    def setting(self) -> str:
        return f"d={self.size.hidden} V={self.size.vocabulary} {self.size.dtype}"

    def goal_of(self, _provider: str) -> str:
        return self.goal

    def peer(self, provider: str) -> Peer:
        return PEERS[provider]

    def small(self) -> Case:
        """The same work at a tiny size, to load what a first call loads."""
        return replace(self, size=replace(self.size, rows=16, hidden=8, vocabulary=64))

    def start(self, seed: int) -> Contest:
        return HeadContest(draw(self.size, seed), self.mode)


class HeadContest:
    """Contestants on one drawn head."""

    def __init__(self, head: Head, mode: str) -> None:
        self.head, self.mode = head, mode
        self._exact: dict[bool, Exact] = {}

    def call(self, provider: str) -> Call:
        return PEERS[provider].prepare(self.head, self.mode)

    def verify(self, provider: str, result: object) -> bool:
        peer = PEERS[provider]
        if peer.bound:
            return False
        assert isinstance(result, Result), provider
        if peer.pairs_alone not in self._exact:
            self._exact[peer.pairs_alone] = exact(self.head, self.mode, pairs_alone=peer.pairs_alone)
        self._exact[peer.pairs_alone].require(result, provider)
        return True

    def bound(self, _provider: str) -> float | None:
        return None


AnyCase = Case | ListCase


ALL = tuple(PEERS)
# The one left out reads the weight again for every few rows: minutes per round where the weight is large.
MOST = tuple(name for name in PEERS if name != "torch linear_cross_entropy auto")
MEMORY = (OURS, "naive")
# The verified call has warmed up a large case already; few rounds, so that a run takes ten minutes on two cores.
LARGE = Pace(least=3, warmup=0)


QUICK = Pace(least=2, most=20, seconds=3, warmup=0)
_QUICK_HEAD = (OURS, "naive", "trl", PRODUCTS)


def cases(device: str = "cpu") -> list[AnyCase]:
    """All cases of a device, ``cpu`` or ``cuda``."""
    return [*(_cuda() if device == "cuda" else _cpu()), *list_cases(device)]


def routine(device: str = "cpu") -> list[AnyCase]:
    """Those of ``pytest --benchmark``."""
    return [case for case in cases(device) if case.routine]


def quick(device: str = "cpu") -> list[AnyCase]:
    """Those of the quick run, with its contestants and pace."""
    return [replace(case, providers=case.quick, pace=QUICK, quick=()) for case in cases(device) if case.quick]


def _cpu() -> list[Case]:
    found = []
    for vocabulary in (32_000, 128_256):
        small = vocabulary == 32_000
        for rows in (128, 512):
            narrow = Size(rows, 256, vocabulary, "float32", "cpu")
            measures = ("time", "memory") if rows == 512 else ("time",)
            mine = _modes(narrow, MODES, ALL if small else MOST, measures, Pace(), "G8" if small else "")
            found += _quickly(mine, "frozen") if small and rows == 128 else mine
            if small:
                # The heap stops growing after some calls.
                found.append(Case(narrow, "frozen", MOST, allocator="kept", pace=Pace(warmup=4), goal="G8"))
            wide = replace(narrow, hidden=1024)
            found += _modes(wide, MODES if small else ("frozen",), MOST, ("time",), LARGE, "G8")
        for rows in (128, 512, 1024, 2048, 4096):
            found.append(Case(Size(rows, 256, vocabulary, "float32", "cpu"), "frozen", MEMORY, ("memory",)))
    return found


def _modes(
    size: Size, modes: tuple[str, ...], providers: tuple[str, ...], measures: tuple[str, ...], pace: Pace, goal: str
) -> list[Case]:
    """A case for each mode; the goal applies to the frozen head."""
    return [Case(size, mode, providers, measures, pace=pace, goal=goal if mode == "frozen" else "") for mode in modes]


def _quickly(found: Sequence[Case], mode: str) -> list[Case]:
    """The same cases, with that of ``mode`` also in the quick run."""
    return [replace(case, quick=_QUICK_HEAD) if case.mode == mode else case for case in found]


def _cuda() -> list[Case]:
    found = []
    for vocabulary in (32_000, 128_256):
        for rows in (512, 4096, 16384):
            for mode in MODES:
                size = Size(rows, 4096, vocabulary, "bfloat16", "cuda")
                goal = "G1" if vocabulary == 128_256 and mode != "forward" else ""
                shown = _QUICK_HEAD if goal and rows == 4096 and mode == "frozen" else ()
                frozen = mode == "frozen"
                measures = ("time",) if frozen else ("time", "memory")
                found.append(Case(size, mode, ALL, measures, goal=goal, quick=shown))
                if frozen:
                    alone = (OURS,) if shown else ()
                    found.append(Case(size, mode, ALL, ("memory",), goal="G2", quick=alone))
    return found
