"""The benchmarks over lists: training steps, steps of few users, scoring, the memory of a step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product

from rosepo_bench.bench import list_peers as peers
from rosepo_bench.bench.job import Found, Job
from rosepo_bench.bench.list_peers import LIST_PEERS
from rosepo_bench.bench.lists import ListSize, draw
from rosepo_bench.bench.network import make, sharing
from rosepo_bench.bench.peer import OURS, Peer
from rosepo_bench.bench.timer import Call, Pace
from rosepo_bench.bench.yardstick import Yardstick
from rosepo_bench.engine.forest import Limits


@dataclass(frozen=True)
class ListCase:
    """As :class:`rosepo_bench.bench.cases.Case`; ``goals``: pairs of a contestant and the goal that our ratio over it
    counts for."""

    work: str
    size: ListSize
    mode: str
    providers: tuple[str, ...]
    goals: tuple[tuple[str, str], ...] = ()
    measures: tuple[str, ...] = ("time",)
    pace: Pace = field(default_factory=lambda: Pace(least=3, most=20, seconds=15, warmup=0))
    allocator: str = "default"
    routine: bool = False
    quick: tuple[str, ...] = ()

    @property
    def x_name(self) -> str:
        return "rejected" if self.mode == "train" else "candidates"

    @property
    def x(self) -> int:
        return self.size.responses - (self.mode == "train")

    @property
    def name(self) -> str:
        what = "" if "time" in self.measures else ", memory"
        return f"{self.work} {self.x} {self.x_name}, {self.setting}, {self.size.device}{what}"

    @property
    def setting(self) -> str:
        size = self.size
        if size.users:
            ends = f"suffix {size.suffix}" if size.suffix else "no suffix"
            listed = f"{size.listed} candidates listed, " if size.listed else ""
            prompts = (
                f"{size.users} users, {size.prompts} steps of {size.shortest}-{size.longest} items, {listed}{ends}"
            )
        else:
            prompts = f"{size.prompts} prompts, P {size.shortest}-{size.longest}"
        head = "" if self.mode == "score" else ", head frozen, LoRA" if size.lora else ", head trained"
        return f"{prompts}, R 6-8, {size.layers}x{size.hidden}, V {size.vocabulary}{head}, {size.dtype}"

    def goal_of(self, provider: str) -> str:
        return dict(self.goals).get(provider, "")

    def peer(self, provider: str) -> Peer:
        return LIST_PEERS[provider]

    def small(self) -> ListCase:
        """The same work at a tiny size, to load what a first call loads."""
        size = replace(
            self.size, layers=1, hidden=16, intermediate=16, heads=2, key_heads=2, vocabulary=64,
            shortest=4, longest=6, prompts=max(1, self.size.users), listed=0,
        )  # fmt: skip
        return replace(self, size=size)

    def start(self, seed: int) -> ListContest:
        job = Job(draw(self.size, seed), self.size, make(self.size, seed), kept="time" not in self.measures)
        return ListContest(job, self.mode)


class ListContest:
    """Contestants on one drawn job."""

    def __init__(self, job: Job, mode: str) -> None:
        self.job, self.mode = job, mode

    @cached_property
    def yardstick(self) -> Yardstick:
        return Yardstick(self.job, self.mode)

    def call(self, provider: str) -> Call:
        job = replace(self.job, network=sharing(self.job.network))
        if job.kept:
            job.clear()
        return LIST_PEERS[provider].prepare(job, self.mode)

    def verify(self, provider: str, result: object) -> bool:
        assert isinstance(result, Found), provider
        self.yardstick.require(result, provider)
        return True

    def bound(self, provider: str) -> float | None:
        """Our time over that of ``provider`` if a call cost only its tokens through the body, without padding."""
        return self.tokens(OURS) / self.tokens(provider)

    def tokens(self, provider: str) -> int:
        """Tokens that a call puts through the body."""
        lists = self.job.lists
        if provider in (peers.CACHED, peers.CACHED_ALL):
            return lists.cached_tokens
        if provider not in (OURS, peers.A_PROMPT):
            return lists.separate_tokens
        limits = Limits(self.job.size.context)
        trees, _ = peers.forest(lists, limits, by_owner=provider == OURS, together=False)
        return sum(map(len, trees))


STEP = ListSize(prompts=8, responses=2, shortest=240, longest=300)
USERS = ListSize(prompts=78, responses=2, shortest=10, longest=19, users=3, vocabulary=8000)
SCORE = ListSize(prompts=4, responses=20, shortest=240, longest=300)
LLAMA_8B = replace(
    STEP, layers=32, hidden=4096, intermediate=14336, heads=32, key_heads=8, vocabulary=128_256, lora=16,
    dtype="bfloat16", device="cuda",
)  # fmt: skip


def list_cases(device: str) -> list[ListCase]:
    """All cases of a device."""
    return _cuda() if device == "cuda" else [*_steps(), *_users(), *_memory(), _scoring()]


def _steps() -> list[ListCase]:
    pairs = (OURS, peers.SEPARATE, peers.FULL, peers.TRL, peers.TRL_KEPT)
    goals = ((peers.SEPARATE, "G3"), (peers.TRL, "G5"))
    found = [ListCase("step", STEP, "train", pairs, goals, quick=(OURS, peers.SEPARATE, peers.TRL))]
    for rejected in (3, 7, 15):
        size = replace(STEP, responses=1 + rejected)
        mine = (OURS, peers.SEPARATE, peers.REPEATED)
        quick = (OURS, peers.SEPARATE) if rejected == 7 else ()
        found.append(ListCase("step", size, "train", mine, ((peers.SEPARATE, "G3"),), quick=quick))
    return found


def _users() -> list[ListCase]:
    found = []
    for suffix, rejected in product((8, 0), (1, 3, 7, 15)):
        size = replace(USERS, suffix=suffix, responses=1 + rejected)
        many = rejected > 1  # as separate rows these are too many tokens to time repeatedly
        who = (OURS, peers.A_PROMPT) if many else (OURS, peers.A_PROMPT, peers.SEPARATE, peers.TRL)
        goals = ((peers.A_PROMPT, "G4"), *(() if many else ((peers.TRL, "G5"),)))
        found.append(ListCase("user step", size, "train", who, goals, quick=() if many else (OURS, peers.A_PROMPT)))
    listed = replace(USERS, suffix=8, listed=20)
    return [*found, ListCase("user step", listed, "train", (OURS, peers.A_PROMPT, peers.SEPARATE))]


def _memory() -> list[ListCase]:
    who, goal = (OURS, peers.SEPARATE), ((peers.SEPARATE, "G6"),)
    return [
        ListCase("step", replace(STEP, responses=1 + k), "train", who, goal, ("memory",), quick=who if k == 1 else ())
        for k in (1, 7)
    ]


def _scoring() -> ListCase:
    who = (OURS, peers.SEPARATE, peers.CACHED, peers.CACHED_ALL)
    return ListCase("score", SCORE, "score", who, tuple((peer, "G7") for peer in who[1:]), quick=who)


def _cuda() -> list[ListCase]:
    """Peers that repeat prompts take one list at a time, to fit one GPU; exact numbers are in fp32."""
    pairs = ListCase("step", LLAMA_8B, "train", (OURS, peers.TRL), ((peers.TRL, "G9"),), quick=(OURS, peers.TRL))
    size = replace(LLAMA_8B, responses=8)
    many = ListCase("step", size, "train", (OURS, peers.REPEATED), ((peers.REPEATED, "G9"),))
    return [pairs, many]
