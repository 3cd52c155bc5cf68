"""Does training with user trees change what is learnt, and what does it save? Paired seeds, equal pairs:

python tests/engine/trees_study.py --seeds 5

Every way of making trees has an output folder of its own below --out; they share the stages that are the same. What is
done is not run again. The ways take turns, seed by seed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import study
from jaxtyping import Float64

from rosepo_bench.base import records, store
from rosepo_bench.base.configure import parse_setting
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.records import Record
from rosepo_bench.evaluation import statistics
from rosepo_bench.evaluation.metrics.ranking import hit_ratio
from rosepo_bench.report.markdown import NONE, interval, number, paragraph, quantity, table
from rosepo_bench.runs.cells import Cell
from rosepo_bench.runs.methods import Preference
from rosepo_bench.runs.plan import cells

METHODS = ("sft", "dpo")


@dataclass(frozen=True)
class Way:
    """A way of making trees: ``prompt.anchor`` and ``preference.trees``."""

    name: str
    folder: str
    anchor: int
    trees: str

    @property
    def settings(self) -> dict[str, Any]:
        return {"prompt.anchor": self.anchor, "preference.trees": self.trees}


WAYS = (
    Way("user trees, anchored windows", "user-anchored", 0, "user"),
    Way("a tree a prompt, anchored windows", "prompt-anchored", 0, "prompt"),
    Way("a tree a prompt, sliding windows", "prompt-sliding", 1, "prompt"),
)
OURS, ANCHORED, SLIDING = WAYS
CONTRASTS = (
    ("both: user trees, anchored − a tree a prompt, sliding", OURS, SLIDING),
    ("trees alone: user − prompt, both anchored", OURS, ANCHORED),
    ("windows alone: anchored − sliding, both a tree a prompt", ANCHORED, SLIDING),
)


@dataclass(frozen=True)
class Trained:
    """A cell's record, and what its training stage reported."""

    record: Record
    report: dict[str, Any]

    @property
    def pairs(self) -> int:
        """Preference pairs seen; 0 of SFT."""
        return int((self.record["diagnostics"]["preference"] or {"pairs_seen": 0})["pairs_seen"])

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return int(self.report["steps"])

    @property
    def hits(self) -> Float64[np.ndarray, " n"]:
        """HR@1 of each test user ``[n]``."""
        return hit_ratio(self.record.predictions("candidates-sum")["rank"], 1)

    @property
    def whole(self) -> bool:
        """Whether one process trained it from beginning to end: a resumed one's rates are of its last part."""
        return bool(self.report["session_seconds"] == self.report["seconds"] > 0)

    @property
    def seconds(self) -> float:
        """Of training, the making of trees included."""
        return float(self.pairs / self.report["pairs_per_s"] if self.pairs else self.report["seconds"])

    @property
    def tokens(self) -> float:
        """Through the model's body, each shared token once."""
        return round(self.report["tokens_per_s"] * self.seconds)


Found = dict[tuple[Way, str, int], Trained]


def run_all(given: argparse.Namespace) -> Found:
    """Every way, method and seed. A run that is done is read. UserError where the runs are not comparable."""
    own = {parse_setting(setting)[0] for setting in given.set} & set(OURS.settings)
    if own:
        raise UserError(f"--set {min(own)}: this study sets it itself; leave it out")
    if given.seeds < 1:
        raise UserError(f"--seeds {given.seeds}: give 1 or more; an interval needs two")
    found: Found = {}
    turns = [(number, way) for number in range(given.seeds) for way in _turned(number)]
    for turn, way in turns:
        found |= {(way, cell.method.name, cell.task.seed): _trained(cell) for cell in _cells(given, way, turn)}
    check_comparable(found)
    return found


def _turned(number: int) -> tuple[Way, ...]:
    """The ways, each seed beginning with another one."""
    return WAYS[number % len(WAYS) :] + WAYS[: number % len(WAYS)]


def _cells(given: argparse.Namespace, way: Way, number: int) -> list[Cell]:
    settings = [f"{key}={value}" for key, value in way.settings.items()]
    config = study.configuration(given, ",".join(METHODS), settings)
    config = config.model_copy(update={"seeds": 1, "first_seed": config.first_seed + number})
    where = study.places(given, _folder(given.out, way))
    for cell in cells(config, where):
        _check_settings(cell, way)
    return study.finished(config, where)


def _check_settings(cell: Cell, way: Way) -> None:
    """UserError, before any work, where a section of the configuration overrules the way's settings."""
    trees = cell.pairing.settings.trees if isinstance(cell.method, Preference) else way.trees
    if (cell.task.config.prompt.anchor, trees) != (way.anchor, way.trees):
        raise UserError(f"{cell.name}: a section of the data set or the method sets prompt.anchor or preference.trees, "
                        "which this study compares; leave it out")  # fmt: skip


def _folder(out: Path, way: Way) -> Path:
    """The way's output folder, whose stages are those of all ways."""
    folder = out / way.folder
    for path in (folder, out / "stages"):
        path.mkdir(parents=True, exist_ok=True)
    if not (folder / "stages").exists():
        (folder / "stages").symlink_to("../stages")
    return folder


def _trained(cell: Cell) -> Trained:
    assert cell.trained is not None
    record = records.read_record(cell.folder / "record.json")
    return Trained(record, cell.task.stages.get(cell.trained).report)


def check_comparable(found: Found) -> None:
    """UserError where two ways differ in the pairs that a method has seen, in what they were evaluated on, or in the
    machine that their times are of."""
    facts: dict[str, Callable[[Trained], Any]] = {
        "pairs seen": lambda one: one.pairs,
        "candidates": lambda one: one.record["data"]["candidates_sha256"],
        "test users": lambda one: one.record.predictions("candidates-sum")["users"].tolist(),
        "machines": lambda one: [one.record["environment"][name] for name in ("processor", "threads", "gpu")],
    }
    for (way, method, seed), one in found.items():
        for name, fact in facts.items():
            if fact(one) != fact(found[OURS, method, seed]):
                raise UserError(f"{method}, seed {seed}: {name} differ between {OURS.name!r} and {way.name!r}; such "
                                "runs cannot be compared")  # fmt: skip


def of(found: Found, way: Way, method: str) -> list[Trained]:
    """One for each seed."""
    return [one for (w, m, _), one in found.items() if (w, m) == (way, method)]


def same(found: Found, one: Way, other: Way, method: str) -> bool:
    """Whether both ways are the same cells: what they differ in does not reach this method."""
    return [a.record.key for a in of(found, one, method)] == [b.record.key for b in of(found, other, method)]


def quality_rows(found: Found) -> list[list[str]]:
    """HR@1 of each method under each way, the mean over seeds."""
    levels = {m: [np.mean([one.hits.mean() for one in of(found, way, m)]) for way in WAYS] for m in METHODS}
    return [[method, *(number(float(level)) for level in level_of)] for method, level_of in levels.items()]


def difference_row(name: str, one: Way, other: Way, method: str, found: Found) -> list[str]:
    """HR@1 of one way minus the other's: over seeds, which are paired, and over users, whose hits are averaged over the
    seeds."""
    first, second = ([trained.hits for trained in of(found, way, method)] for way in (one, other))
    seeds = np.array([a.mean() - b.mean() for a, b in zip(first, second, strict=True)])
    users = statistics.paired(statistics.over_seeds(first), statistics.over_seeds(second))
    over_seeds = interval(statistics.student(seeds), signed=True) if len(seeds) > 1 else number(seeds[0], signed=True)
    ends = ", ".join(number(float(end), signed=True) for end in (seeds.min(), seeds.max()))
    return [name, method, over_seeds, ends, interval(users, signed=True)]


def cost_row(way: Way, method: str, found: Found) -> list[str]:
    """What training took under this way, and over what it took under ours: means over the seeds that one process
    trained under both."""
    both = list(zip(of(found, way, method), of(found, OURS, method), strict=True))
    pairs, steps = (float(np.mean([getattr(one, name) for one, _ in both])) for name in ("pairs", "steps"))
    row = [method, way.name, quantity(pairs) if pairs else NONE, quantity(steps)]
    whole = [pair for pair in both if all(one.whole for one in pair)]
    if not whole:
        return [*row, *[NONE] * 4]
    tokens, seconds = (np.array([[getattr(t, name) for t in pair] for pair in whole]) for name in ("tokens", "seconds"))
    spent = [quantity(float(what[:, 0].mean())) for what in (tokens, seconds)]
    times = seconds[:, 0] / seconds[:, 1]
    ratio = f"{np.median(times):.2f} [{times.min():.2f}, {times.max():.2f}]"
    return [*row, spent[0], f"{tokens[:, 0].sum() / tokens[:, 1].sum():.2f}", spent[1], ratio]


def sft_sentence(found: Found) -> str:
    """Whether all ways begin with the same model, in words."""
    scores = [[one.record.predictions("candidates-sum")["scores"] for one in of(found, way, "sft")] for way in WAYS]
    worst = max(float(np.abs(np.subtract(a, b)).max()) for way in scores for a, b in zip(way, scores[0], strict=True))
    verdict = "are equal to the last bit" if worst == 0 else f"differ by up to {worst:.1e}"
    return f"SFT reads a user's window as one trunk whichever the way: its scores of all candidates {verdict}."


DIFFERENCES = ["HR@1 of", "method", "mean over seeds [95 %]", "smallest, largest seed", "over users [95 %]"]
COSTS = ["method", "trees", "pairs", "optimizer steps", "tokens", "over user trees'", "seconds"]
COSTS += ["over user trees': median [least, most]"]


def about(found: Found, profile: str) -> str:
    """What was run, and how the ways differ."""
    record, seeds = next(iter(found.values())).record, sorted({seed for _, _, seed in found})
    machines = dict.fromkeys(study.machine(one.record["environment"]) for one in found.values())
    size = record["evaluations"]["candidates-sum"]["facts"]["size"]
    data, steps = record["data"], (record["config"]["prompt"]["history"] + 1) // 2
    return paragraph(
        f"`make trees` ({'; '.join(machines)}): {data['source']} ({data['kind']}), {profile},",
        f"{data['users']:,} test users, the target among {size} candidates,",
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}. Whatever the trees, a method trains on the same",
        "steps of the same users, equally many pairs (checked). User trees (`preference.trees=user`): a user's pairs",
        "share one tree and one optimizer step; else (`prompt`) each pair stands for itself. Anchored windows",
        f"(`prompt.anchor=0`): histories begin anew every {steps} steps; sliding windows (`prompt.anchor=1`): at every",
        "step. Where histories begin also reaches the reference's log-probs and what self-hard rejects.",
    )


def markdown(found: Found, profile: str) -> str:
    """The whole text."""
    differences = paragraph(
        "Differences are paired: over seeds with Student's t of each seed's mean difference, for these test users;",
        "over users with each user's hits averaged over the seeds.",
        sft_sentence(found),
        "Rows are left out where both are the same run.",
    )
    resumed = len({one.record.key for one in found.values() if not one.whole})
    costs = paragraph(
        "Of training alone, the making of its trees included: tokens that went through the model's body, and time,",
        "means over the seeds, and both over those of user trees. The ways took turns, seed by seed.",
        f"{resumed} trainings were interrupted: their tokens and times are left out." if resumed else "",
    )
    rows = [
        difference_row(name, one, other, method, found)
        for name, one, other in CONTRASTS
        for method in METHODS
        if not same(found, one, other, method)
    ]
    spent = [
        cost_row(way, method, found)
        for method in METHODS
        for way in WAYS
        if way == OURS or not same(found, way, OURS, method)
    ]
    parts = ["# User trees against a tree a prompt", about(found, profile), "## HR@1"]
    parts += [
        table(["method", *(way.name for way in WAYS)], quality_rows(found), left=["method"], whole=True),
        differences,
    ]
    parts += [table(DIFFERENCES, rows, left=DIFFERENCES[:2], whole=True)]
    parts += ["## Cost", costs, table(COSTS, spent, left=COSTS[:2], whole=True)]
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    parser = study.parser(__doc__, out="results/runs/trees", into="results/engine/trees.md")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="number of seeds; default: 5")
    given = parser.parse_args(arguments)
    found = run_all(given)
    text = markdown(found, study.profile(given, study.configuration(given, ",".join(METHODS))))
    store.write_text(given.into, text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(study.run(main))
