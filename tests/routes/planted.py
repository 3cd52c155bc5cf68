"""Small worlds that tests write as files, the pipeline on them, and the plain computations that it is held against:
histories by hand, prompts by hand, transformers' own forward pass over one row. Nothing of the engine is used here."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rosepo_bench.base.config import RunConfig
from rosepo_bench.base.configure import parse_setting, set_key, validate
from rosepo_bench.pipeline.results import Trained
from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.runs.cells import Cell
from rosepo_bench.runs.composing import composed
from rosepo_bench.runs.methods import Preference
from rosepo_bench.runs.plan import Places, cells

NAME = "planted"
HISTORY, ANCHOR = 4, 2
SETTINGS: dict[str, Any] = {
    "profile": "routes",
    "threads": 1,
    "model": {"hidden": 16, "layers": 1, "heads": 2, "vocabulary": 330, "context": 512},
    "prompt": {"history": HISTORY, "anchor": ANCHOR},
    "sft": {"batch": 16, "min_steps": 0, "evaluations": 0},
    "oracles": {"sasrec": {"hidden": 8, "layers": 1, "heads": 1, "length": 6, "epochs": 2, "batch": 8}},
    "samplers": {"semantic": {"history": HISTORY}},
    "preference": {"pairs": 50, "steps_per_user": 3, "validation_pairs": 20, "batch": 8},
}
DAY, START = 86_400, 1_000_000_000
NOUNS = ["Amber", "Basalt", "Cobalt", "Dune", "Ember", "Fjord", "Garnet", "Harbour", "Iris", "Jade", "Kelp", "Lagoon"]
NEVER_TRAINED = (24, 25)  # items that occur as validation and test targets alone
USERS, ITEMS = 24, 26


@dataclass(frozen=True)
class World:
    """A data set as its owner would publish it: ``rows`` of (user, item, unix seconds) in file order."""

    titles: tuple[str, ...]
    genres: tuple[str, ...]
    rows: tuple[tuple[str, int, int], ...]

    @property
    def ordered(self) -> list[list[int]]:
        """The rows of each user in time, users as they appear in the file: equal times stay in file order, and of
        events with one item the first stays."""
        users = list(dict.fromkeys(user for user, _, _ in self.rows))
        found = []
        for user in users:
            mine = [number for number, row in enumerate(self.rows) if row[0] == user]
            mine.sort(key=lambda number: self.rows[number][2])
            met: set[int] = set()
            kept = []
            for number in mine:
                if self.rows[number][1] not in met:
                    kept.append(number)
                met.add(self.rows[number][1])
            found.append(kept)
        return found

    @property
    def histories(self) -> list[list[int]]:
        """The items of each user, oldest first."""
        return [[self.rows[number][1] for number in mine] for mine in self.ordered]

    def training(self, split: str = "leave_one_out") -> list[list[int]]:
        """What may be trained on: all but each user's last two items, or what was before the first date."""
        if split == "leave_one_out":
            return [history[:-2] for history in self.histories]
        first, _ = self.dates
        return [[self.rows[number][1] for number in mine if self.rows[number][2] < first] for mine in self.ordered]

    @property
    def dates(self) -> tuple[int, int]:
        """The two dates of the temporal split: those of the events at 80 % and 90 %."""
        times = sorted(self.rows[number][2] for mine in self.ordered for number in mine)
        return times[int(0.8 * len(times))], times[int(0.9 * len(times))]

    def held_out(self, split: str, part: str) -> list[int]:
        """The rows that belong to a part."""
        if split == "leave_one_out":
            return [mine[-1 if part == "test" else -2] for mine in self.ordered]
        first, second = self.dates
        bounds = (second, 1 << 60) if part == "test" else (first, second)
        return [number for mine in self.ordered for number in mine if bounds[0] <= self.rows[number][2] < bounds[1]]

    def changed(self, split: str, part: str, seed: int = 1) -> World:
        """The same world but for the items of one held-out part; every user still meets an item once, and the
        catalogue still holds every title."""
        draw, rows = np.random.default_rng(seed), list(self.rows)
        for number in self.held_out(split, part):
            user, old, time = rows[number]
            if old in NEVER_TRAINED:
                continue
            met = {item for who, item, _ in rows if who == user}
            fresh = [item for item in range(ITEMS) if item not in met and item not in NEVER_TRAINED]
            rows[number] = (user, int(draw.choice(fresh)), time)
        return replace(self, rows=tuple(rows))

    def write(self, folder: Path) -> Path:
        """As RecBole's atomic files; returns the prefix of their path."""
        folder.mkdir(parents=True, exist_ok=True)
        inter = [f"{user}\ti{item}\t{time}" for user, item, time in self.rows]
        item = [f"i{n}\t{title}\t{self.genres[n]}" for n, title in enumerate(self.titles)]
        heads = ("user_id:token\titem_id:token\ttimestamp:float", "item_id:token\ttitle:token_seq\tgenre:token_seq")
        for kind, head, lines in (("inter", heads[0], inter), ("item", heads[1], item)):
            (folder / f"{NAME}.{kind}").write_text("\n".join([head, *lines]) + "\n")
        return folder / NAME


def titles() -> tuple[str, ...]:
    """Titles of very unlike lengths."""
    made = [f"{NOUNS[n % 12]} {n}" + f" of the {NOUNS[(5 * n + 3) % 12]} and more" * (n % 3 == 0) for n in range(24)]
    return (*made, "Zyzzyva Quux", "Xylyl Vizier Quux")


def world(seed: int = 0) -> World:
    """Users of 6 to 9 events, in shuffled rows, with events of equal time and one that comes twice. Each item of the
    first 24 is in somebody's training part, the last two in nobody's."""
    draw = np.random.default_rng(seed)
    rows: list[tuple[str, int, int]] = []
    for user in range(USERS):
        items = draw.permutation(NEVER_TRAINED[0])[: draw.integers(6, 10)].tolist()
        start = START + int(draw.integers(8)) * DAY
        if user < 2:
            items[-2 + user] = NEVER_TRAINED[0]  # once as a validation target, once as a test target
            items[-1 - user] = NEVER_TRAINED[1]
        rows += [(f"u{user}", item, start + place * DAY + user) for place, item in enumerate(items)]
    rows[2] = (*rows[2][:2], rows[1][2])  # a tie
    rows.append((rows[-1][0], rows[-5][1], rows[-2][2] + 1))  # an item taken a second time
    shuffled = [rows[number] for number in draw.permutation(len(rows))]
    return World(titles(), tuple("long" if n % 3 == 0 else "short" for n in range(ITEMS)), tuple(shuffled))


def cell(out: Path, prefix: Path, *settings: str, method: str | Preference = "dpo") -> Cell:
    """One cell of the pipeline over the files at ``prefix``."""
    registered = method if isinstance(method, str) else "dpo"
    table = {
        **copy.deepcopy(SETTINGS),
        "methods": [registered],
        "datasets": {NAME: {"source": "atomic", "path": str(prefix), "candidates": 6}},
    }
    for setting in settings:
        set_key(table, *parse_setting(setting))
    (found,) = cells(validate(table, RunConfig), Places(out, None, out / "cache", offline=True))
    return found if isinstance(method, str) else Cell(found.shared, composed(method, found.task.config))


def get(cell: Cell, stage: Stage[Any]) -> Any:
    return cell.task.stages.get(stage)


def start(step: int, last: int, history: int = HISTORY, anchor: int = ANCHOR) -> int:
    """Where a prompt begins: the prompt of the user's ``last`` training step has ``history`` items, and earlier ones
    begin together in groups of ``anchor`` steps; held-out prompts have ``history`` items."""
    latest = max(last, step)
    while latest - anchor >= step:
        latest -= anchor
    return max(0, latest - history)


def prompt(cell: Cell, world: World, items: Sequence[int], listed: Iterable[int] | None = None) -> list[int]:
    """The tokens of a prompt over ``items``, oldest first."""
    encoder = cell.language.encoder

    def line(text: str) -> list[int]:
        return [*encoder.encode(text), encoder.end]

    ids = [*encoder.begin, *line("Items taken, oldest first:")]
    for item in items:
        ids += line(world.titles[item])
    if listed is not None:
        ids += line("Candidates:")
        for item in listed:
            ids += line(world.titles[item])
        ids += line("Taken next:")
    return ids


def response(cell: Cell, world: World, item: int) -> list[int]:
    return [*cell.language.encoder.encode(world.titles[item]), cell.language.encoder.end]


def logp(network: nn.Module, given: Sequence[int], said: Sequence[int]) -> Tensor:
    """The response's summed log-prob by transformers' forward pass over one row."""
    logits = network(torch.tensor([[*given, *said]])).logits[0]
    before = logits[len(given) - 1 : -1].log_softmax(-1)
    return before.gather(1, torch.tensor(said)[:, None]).sum()


def network(cell: Cell, trained: Stage[Trained] | None) -> nn.Module:
    """The bare transformers model under the weights of a stage."""
    weights = None if trained is None else get(cell, trained).weights
    made: nn.Module = cell.language.create(weights).network
    return made


def prompts_of(cell: Cell, world: World, examples: Any, *, listed: bool = False) -> list[list[int]]:
    """The prompt of each example, from the histories that the files tell."""
    histories, split = world.histories, cell.task.dataset_config.split
    last = [len(own) - 1 for own in world.training(split)]
    rows = zip(examples.user.tolist(), examples.step.tolist(), examples.candidates, strict=True)
    return [
        prompt(cell, world, histories[user][start(step, last[user]) : step], candidates.tolist() if listed else None)
        for user, step, candidates in rows
    ]


@torch.no_grad()
def sums(model: nn.Module, cell: Cell, world: World, prompts: list[list[int]], items: Any) -> np.ndarray:
    """Summed log-probs ``[n, R]`` of ``items`` ``[n, R]``."""
    said = [[response(cell, world, int(item)) for item in row] for row in items]
    rows = [[float(logp(model, given, one)) for one in row] for given, row in zip(prompts, said, strict=True)]
    return np.array(rows)
