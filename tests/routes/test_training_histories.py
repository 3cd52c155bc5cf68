"""Whatever is trained reads the split's training part, user by user and in time: derived from the raw rows by hand."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import planted
import pytest
from planted import get

from rosepo_bench.base.work import Work
from rosepo_bench.data.views import TrainView
from rosepo_bench.engine.prompts import examples, tokens
from rosepo_bench.pipeline import finetuning
from rosepo_bench.pipeline.evaluating import of_items
from rosepo_bench.recommenders import sasrec
from rosepo_bench.runs.cells import Cell
from rosepo_bench.runs.methods import Recommender, methods

Lists = list[list[int]]


@dataclass
class Seen:
    """What was given to whom in one run."""

    world: planted.World
    split: str
    cell: Cell | None = None
    sasrec: dict[str, Lists] = field(default_factory=dict)
    counted: list[Lists] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    windows: list[Any] = field(default_factory=list)
    pairs: list[Any] = field(default_factory=list)


def plain(sequences: Any) -> Lists:
    return [[int(item) for item in sequence] for sequence in sequences]


def watch(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    train, train_tiny, counts = sasrec.train, tokens.train_tiny, TrainView.counts.func
    trees, build_all = finetuning.window_trees, examples.build_all

    def trained(sequences: Any, items: Any, config: Any, work: Work, holdout: Any) -> Any:
        assert holdout is None
        seen.sasrec[work.label] = plain(sequences)
        return train(sequences, items, config, work, holdout)

    def counted(view: TrainView) -> Any:
        seen.counted.append(plain(view.sequences))
        return counts(view)

    def tokenized(texts: Any, vocabulary: int) -> Any:
        seen.texts = list(texts)
        return train_tiny(texts, vocabulary)

    def windowed(prompter: Any, sequences: Any, windows: Any, **options: Any) -> Any:
        def built(groups: Any, *arguments: Any, **more: Any) -> Any:
            seen.pairs += groups
            return build_all(groups, *arguments, **more)

        seen.windows += windows
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(examples, "build_all", built)
            return trees(prompter, sequences, windows, **options)

    monkeypatch.setattr(sasrec, "train", trained)
    monkeypatch.setattr(TrainView, "counts", property(counted))
    monkeypatch.setattr(tokens, "train_tiny", tokenized)
    monkeypatch.setattr(finetuning, "window_trees", windowed)


@pytest.fixture(scope="module", params=["leave_one_out", "temporal"])
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """RosePO's whole run on a world, watched."""
    folder, found = tmp_path_factory.mktemp("histories"), Seen(planted.world(), request.param)
    setting = f"datasets.planted.split={request.param}"
    found.cell = planted.cell(folder / "out", found.world.write(folder), setting, method="rosepo")
    with pytest.MonkeyPatch.context() as monkeypatch:
        watch(found, monkeypatch)
        for stage in found.cell.stages:
            get(found.cell, stage)
    return found


def test_data_are_the_rows_in_time(seen: Seen) -> None:
    """Whatever order the file has; equal times stay in file order, an item that comes twice counts once."""
    assert seen.cell is not None
    assert plain(seen.cell.task.data.sequences) == seen.world.histories
    assert len({(user, time) for user, _, time in seen.world.rows}) < len(seen.world.rows), "no tie is planted"
    assert sum(map(len, seen.world.histories)) < len(seen.world.rows), "no repetition is planted"


def test_sasrec_reads_the_training_part_of_everybody(seen: Seen) -> None:
    assert seen.sasrec["planted sasrec"] == seen.world.training(seen.split)


def test_each_fold_of_the_oracle_reads_the_other_folds_users(seen: Seen) -> None:
    assert seen.cell is not None
    judging = seen.cell.smoothed.judging
    assert judging is not None
    fold = get(seen.cell, judging.crossfit).fold
    assert sorted(np.bincount(fold)) == [12, 12]
    for number in range(2):
        others = [own for user, own in enumerate(seen.world.training(seen.split)) if fold[user] != number]
        assert seen.sasrec[f"planted sasrec {number + 1}/2"] == others


def test_popularity_is_counted_in_training(seen: Seen) -> None:
    """By samplers and temperatures, and in the baseline's scores."""
    assert seen.cell is not None
    wanted = seen.world.training(seen.split)
    assert len(seen.counted) >= 2
    assert all(given == wanted for given in seen.counted)
    times = Counter(item for own in wanted for item in own)
    method, test = methods()["popularity"], seen.cell.task.test
    assert isinstance(method, Recommender)
    shared = seen.cell.shared
    scores = get(seen.cell, of_items(shared.fits, method.name, method.model, shared.protocols[0])).answers["scores"]
    expected = [[math.log(1 + times[item]) for item in row] for row in test.candidates.tolist()]
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


def test_the_tokenizer_reads_the_titles_of_training(seen: Seen) -> None:
    met = {item for own in seen.world.training(seen.split) for item in own}
    words = ["Items taken, oldest first:", "Candidates:", "Taken next:"]
    assert sorted(seen.texts) == sorted([*(seen.world.titles[item] for item in met), *words])
    if seen.split == "leave_one_out":
        assert not [text for text in seen.texts if "Quux" in text]


def test_sft_predicts_every_training_step_once(seen: Seen) -> None:
    """Under the items of its window before it, and nothing of validation or test."""
    assert seen.cell is not None
    training, predicted = seen.world.training(seen.split), []
    for window, pairs in zip(seen.windows, seen.pairs, strict=True):
        own = training[window.user]
        assert 0 <= window.start < window.stop <= len(own)
        assert window.stop - window.start <= planted.HISTORY + 1
        for step, (given, said) in zip(range(window.start, window.stop), pairs, strict=True):
            assert given.tolist() == planted.prompt(seen.cell, seen.world, own[window.start : step])
            assert said.tolist() == planted.response(seen.cell, seen.world, own[step])
            predicted.append((window.user, step))
    assert sorted(predicted) == [(user, step) for user, own in enumerate(training) for step in range(len(own))]
