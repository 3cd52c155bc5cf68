"""What the model is given to read: the token ids that reach the forest, decoded and compared with text by hand."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import planted
import pytest
from planted import get

from rosepo_bench.engine.prompts import examples
from rosepo_bench.engine.prompts.tokens import Encoder
from rosepo_bench.losses.compiled import RosePO
from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.preference.samplers.mixed import Mixed
from rosepo_bench.runs.cells import Cell
from rosepo_bench.runs.methods import Preference

PHASES = ("sft", "mining", "reference", "training", "after", "scoring")
Lines = tuple[str, ...]
HEADER, LISTING, ANSWER = "Items taken, oldest first:", "Candidates:", "Taken next:"


class Watched:
    """A run whose prompts were read as they passed: phase → the user's (prompt, response) pairs as lines of text."""

    def __init__(self, cell: Cell, world: planted.World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cell, self.world = cell, world
        self.read: dict[str, list[tuple[Lines, Lines]]] = {}
        stages = {
            "sft": cell.sft,
            "mining": cell.pairing.mining.stage,
            "reference": cell.reference,
            "training": cell.trained,
            "after": cell.after,
            "scoring": cell.answered["candidates-sum"],
        }
        for phase, stage in stages.items():
            assert stage is not None
            self.read[phase] = self._watch(stage, monkeypatch)

    def _watch(self, stage: Stage[Any], monkeypatch: pytest.MonkeyPatch) -> list[tuple[Lines, Lines]]:
        build_all, found, encoder = examples.build_all, [], self.cell.language.encoder

        def watched(groups: Any, *arguments: Any, **options: Any) -> Any:
            groups = list(groups)
            found.extend((lines(encoder, one), lines(encoder, two)) for group in groups for one, two in group)
            return build_all(groups, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(examples, "build_all", watched)
            get(self.cell, stage)
        return found

    def under(self, phase: str) -> dict[Lines, set[Lines]]:
        """The responses of each prompt."""
        found = defaultdict(set)
        for prompt, response in self.read[phase]:
            found[prompt].add(response)
        return dict(found)


def lines(encoder: Encoder, ids: Any) -> Lines:
    """Text, split at the end token."""
    parts: list[list[int]] = [[]]
    for token in ids.tolist():
        if token == encoder.end:
            parts.append([])
        else:
            parts[-1].append(token)
    assert not parts[-1], "everything is closed by the end token"
    return tuple(encoder.decode(part) for part in parts[:-1])


def run(folder: Any, *settings: str) -> Watched:
    world = planted.world()
    method = Preference(name="read", about="self-hard", loss=RosePO(), sampler=Mixed())
    with pytest.MonkeyPatch.context() as monkeypatch:
        cell = planted.cell(folder / "out", world.write(folder), *settings, method=method)
        return Watched(cell, world, monkeypatch)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return run(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def listing(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return run(tmp_path_factory.mktemp("listing"), "prompt.candidates=true")


def test_one_users_prompts_word_by_word(plain: Watched) -> None:
    """User 2 of the file: seven items taken, the first five of them for training, so pairs ask for the steps 2, 3 and
    4. Four items at the latest; those before begin anew every two steps."""
    took = ["Garnet 18 of the Jade and more", "Jade 21 of the Amber and more", "Ember 4", "Kelp 10", "Lagoon 11"]
    took += ["Zyzzyva Quux", "Xylyl Vizier Quux"]
    assert [plain.world.titles[item] for item in plain.world.histories[2]] == took
    given = plain.cell.pairing.examples["train"]
    assert given.step[given.user == 2].tolist() == [2, 3, 4]
    prompts = [(HEADER, *took[:2]), (HEADER, *took[:3]), (HEADER, *took[:4])]
    for phase in ("mining", "reference", "training"):
        read = plain.under(phase)
        for prompt, taken in zip(prompts, took[2:5], strict=True):
            assert (taken,) in read[prompt], phase
    test = plain.under("scoring")[(HEADER, *took[2:6])]  # the last four before the test item
    assert ("Xylyl Vizier Quux",) in test
    assert len(test) == 6


def test_windows_begin_anew_every_anchor_steps(plain: Watched) -> None:
    """All prompts of all phases, by the same rule from the raw rows."""
    world, pairing = plain.world, plain.cell.pairing
    parts = {"mining": ("train", "validation"), "reference": ("train", "validation"), "training": ("train",)}
    lengths = set()
    for phase, names in {**parts, "after": ("validation",)}.items():
        wanted = set()
        for part in names:
            rows = list(zip(pairing.examples[part].user.tolist(), pairing.examples[part].step.tolist(), strict=True))
            for user, step in rows:
                latest = max(s for u, s in rows if u == user)
                items = world.histories[user][planted.start(step, latest) : step]
                wanted.add((HEADER, *(world.titles[item] for item in items)))
                lengths.add((latest - step, len(items)))
        assert set(plain.under(phase)) == wanted, phase
    assert {(0, 4), (1, 3), (2, 4)} <= lengths


def test_scoring_reads_the_last_items_before_the_test_item(plain: Watched) -> None:
    wanted = {(HEADER, *(plain.world.titles[item] for item in own[:-1][-4:])) for own in plain.world.histories}
    assert set(plain.under("scoring")) == wanted


def test_chosen_and_rejected_stand_under_their_own_prompt(plain: Watched) -> None:
    world, pairing = plain.world, plain.cell.pairing
    given, titles = pairing.examples["train"], pairing.titles("train")
    trained, referred = plain.under("training"), plain.under("reference")
    for user, step, pair in zip(given.user.tolist(), given.step.tolist(), titles.tolist(), strict=True):
        latest = int(given.step[given.user == user].max())
        items = world.histories[user][planted.start(step, latest) : step]
        prompt = (HEADER, *(world.titles[item] for item in items))
        said = {(world.titles[item],) for item in pair}
        assert said <= trained[prompt]
        assert said <= referred[prompt]
        assert pair[0] == world.histories[user][step]


@pytest.mark.parametrize(("history", "anchor"), [(4, 1), (5, 0)])
def test_the_window_is_the_settings(history: int, anchor: int, tmp_path: Any) -> None:
    """An anchor of 1 slides; 0 is half the history, rounded up."""
    watched = run(tmp_path, f"prompt.history={history}", f"prompt.anchor={anchor}")
    world, given = watched.world, watched.cell.pairing.examples["train"]
    wanted = set()
    for user, step in zip(given.user.tolist(), given.step.tolist(), strict=True):
        latest = int(given.step[given.user == user].max())
        items = world.histories[user][planted.start(step, latest, history, anchor or 3) : step]
        wanted.add((HEADER, *(world.titles[item] for item in items)))
    assert set(watched.under("training")) == wanted
    assert max(map(len, watched.under("sft"))) == history + 1


def test_listed_candidates_are_the_examples_own(listing: Watched) -> None:
    """Every prompt lists the target among six titles and asks for the next one; SFT's steps list their own."""
    for phase in PHASES:
        for prompt, responses in listing.under(phase).items():
            assert prompt[0] == HEADER
            assert prompt[-1] == ANSWER
            assert prompt.index(LISTING) == len(prompt) - 8
            if phase in ("sft", "scoring", "training"):
                assert {response[0] for response in responses} <= set(prompt[-7:-1])
    assert all(len(responses) == 1 for responses in listing.under("sft").values())
    test = listing.cell.task.test
    wanted = {tuple(listing.world.titles[item] for item in row) for row in test.candidates.tolist()}
    assert {prompt[-7:-1] for prompt in listing.under("scoring")} == wanted


def test_the_rejected_item_is_listed_at_no_fixed_place(listing: Watched) -> None:
    """It takes the place of another one where it was not there, never the target's: seen from the front of the list,
    and from the target, it is anywhere."""
    pairing, placed, from_target = listing.cell.pairing, set(), set()
    for part in ("train", "validation"):
        before, after, titles = pairing.examples[part], pairing.prompts(part), pairing.titles(part)
        for row, (chosen, rejected) in enumerate(titles.tolist()):
            was, now = before.candidates[row].tolist(), after.candidates[row].tolist()
            assert now.count(rejected) == now.count(chosen) == 1
            assert now.index(chosen) == was.index(chosen) == before.position[row]
            assert sum(one != two for one, two in zip(was, now, strict=True)) == (rejected not in was)
            if rejected not in was:
                placed.add(now.index(rejected))
                from_target.add((now.index(rejected) - now.index(chosen)) % 6)
    assert placed == set(range(6))
    assert from_target == set(range(1, 6))


def test_reference_and_training_read_the_same_lists(listing: Watched) -> None:
    """And so does what is measured on validation pairs afterwards."""
    reference = listing.under("reference")
    for phase in ("training", "after"):
        read = listing.under(phase)
        assert read.keys() <= reference.keys()
        assert all(responses == reference[prompt] for prompt, responses in read.items())
    assert len(listing.under("training")) + len(listing.under("after")) == len(reference)
