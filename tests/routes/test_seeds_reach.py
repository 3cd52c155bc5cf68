"""Which seed reaches what: the run's everything that is trained or drawn for training, each for itself; the data set's
the frozen lists alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
import torch
from planted import get

from rosepo_bench.base.work import Work
from rosepo_bench.engine.training.steps import Steps
from rosepo_bench.pipeline import alignment, finetuning
from rosepo_bench.recommenders import sasrec
from rosepo_bench.runs.cells import Cell

Content = dict[str, Any]


def weights(model: torch.nn.Module) -> np.ndarray:
    return torch.cat([p.detach().ravel() for p in model.parameters()]).numpy().copy()


class Order:
    """The order in which trainings read what they are given, as they read it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.windows: list[Any] = []
        self.pairs: list[Any] = []
        self.sasrec: dict[str, list[Any]] = {}
        self.begun: dict[str, np.ndarray] = {}
        self.seeds: dict[str, int] = {}
        trees, backward, loss, train = finetuning.window_trees, Steps.backward, sasrec.window_loss, sasrec.train

        def windowed(prompter: Any, sequences: Any, windows: Any, **options: Any) -> Any:
            self.windows += [(window.user, window.start, window.stop) for window in windows]
            return trees(prompter, sequences, windows, **options)

        def stepped(steps: Steps, groups: Any, columns: Any) -> Any:
            for group in groups:
                self.pairs += group.rows(steps.pairs.titles.shape[1]).tolist()
            return backward(steps, groups, columns)

        def trained(sequences: Any, items: Any, config: Any, work: Work, holdout: Any) -> Any:
            def lost(model: Any, ids: Any) -> Any:
                self.begun.setdefault(work.label, weights(model))
                self.sasrec.setdefault(work.label, []).append(ids.tolist())
                return loss(model, ids)

            self.seeds[work.label] = work.seed
            with pytest.MonkeyPatch.context() as inner:
                inner.setattr(sasrec, "window_loss", lost)
                return train(sequences, items, config, work, holdout)

        for module, name in ((finetuning, "train_sft"), (alignment, "train_preference")):
            self._seed_of(module, name, monkeypatch)
        monkeypatch.setattr(finetuning, "window_trees", windowed)
        monkeypatch.setattr(Steps, "backward", stepped)
        monkeypatch.setattr(sasrec, "train", trained)

    def _seed_of(self, module: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        train = getattr(module, name)

        def seeded(*arguments: Any, work: Work, **options: Any) -> Any:
            self.seeds[name] = work.seed
            return train(*arguments, work=work, **options)

        monkeypatch.setattr(module, name, seeded)


def content(folder: Path, *settings: str) -> Content:
    """All that a seed may reach, of RosePO over a world with candidates in the prompts."""
    cell = planted.cell(
        folder / "out", planted.world().write(folder), "prompt.candidates=true", *settings, method="rosepo"
    )
    with pytest.MonkeyPatch.context() as monkeypatch:
        order = Order(monkeypatch)
        for stage in cell.stages:
            get(cell, stage)
    pairing, judging = cell.pairing, cell.smoothed.judging
    assert judging is not None
    found: Content = {
        "first weights": weights(planted.network(cell, None)),
        "sft": weights(planted.network(cell, cell.sft)),
        "sft order": order.windows,
        "sasrec": np.concatenate([array.ravel() for array in get(cell, judging.everybody).values()]),
        "folds": get(cell, judging.crossfit).fold,
        "pair order": order.pairs,
        **{f"seed of {name}": np.array(seed) for name, seed in order.seeds.items()},
        "aligned": weights(planted.network(cell, cell.trained)),
    }
    for label in ("planted sasrec", "planted sasrec 1/2", "planted sasrec 2/2"):
        found[f"{label} first weights"], found[f"{label} order"] = order.begun[label], order.sasrec[label]
    for part in ("train", "validation"):
        given = pairing.examples[part]
        found[f"steps {part}"] = np.stack([given.user, given.step])
        found[f"rejected {part}"], found[f"kinds {part}"] = (
            getattr(get(cell, pairing.rejected)[part], name) for name in ("items", "kind")
        )
        found[f"lists {part}"] = given.candidates
        found[f"slots {part}"] = pairing.prompts(part).candidates
        changed = found[f"slots {part}"] != given.candidates
        away = (changed.argmax(axis=1) - given.position) % changed.shape[1]
        found[f"distance {part}"] = np.where(changed.any(axis=1), away, -1)  # of the rejected item from the target
    found |= _frozen(cell)
    return found


def _frozen(cell: Cell) -> Content:
    parts = ("validation", "test")
    return {f"frozen {part}": get(cell, cell.task.examples_stage(part)).candidates for part in parts}  # type: ignore[arg-type]


def differing(one: Content, two: Content) -> set[str]:
    return {name for name in one if not np.array_equal(_flat(one[name]), _flat(two[name]))}


def _flat(value: Any) -> Any:
    return np.array(repr(value)) if isinstance(value, list) else value


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Content:
    return content(tmp_path_factory.mktemp("base"))


FROZEN = {"frozen validation", "frozen test"}
VALIDATION = {f"{name} validation" for name in ("rejected", "lists", "slots", "distance")}


def test_the_same_seed_gives_the_same(base: Content, tmp_path: Path) -> None:
    assert differing(base, content(tmp_path)) == set()


def test_the_runs_seed_reaches_everything_but_the_frozen_lists(base: Content, tmp_path: Path) -> None:
    assert differing(base, content(tmp_path, "first_seed=1")) == base.keys() - FROZEN


def test_the_data_sets_seed_reaches_the_lists_alone(base: Content, tmp_path: Path) -> None:
    """And what is made of the validation lists; RosePO's weights by τ, which is fitted there."""
    moved = differing(base, content(tmp_path, "datasets.planted.seed=1"))
    assert moved >= FROZEN | VALIDATION
    assert moved <= FROZEN | VALIDATION | {"aligned"}


def test_the_runs_seed_reaches_the_place_of_the_rejected_item(base: Content, tmp_path: Path) -> None:
    """Rows of both parts in which an item of the list gave way, under either seed."""
    other, same, n = content(tmp_path, "first_seed=1"), 0, 0
    for name in ("distance train", "distance validation"):
        size = min(len(base[name]), len(other[name]))
        one, two = base[name][:size], other[name][:size]
        both = (one > 0) & (two > 0)
        n += int(both.sum())
        same += int((one[both] == two[both]).sum())
    assert n > 12
    assert same < 0.7 * n


FIRST = ("planted sasrec", "planted sasrec 1/2")
STREAMS: dict[str, Callable[[Content], Any]] = {
    "weights of sasrec and of each fold": lambda c: [c[f"{n} first weights"] for n in FIRST],
    "weights of the folds": lambda c: [c[f"planted sasrec {n}/2 first weights"] for n in (1, 2)],
    "kinds of the parts": lambda c: [c[f"kinds {part}"][:20] for part in ("train", "validation")],
}


def test_every_training_has_a_seed_of_its_own(base: Content) -> None:
    """Of the order and of dropout: of SFT, of preference training, of SASRec and of each fold."""
    seeds = [int(value) for name, value in base.items() if name.startswith("seed of")]
    assert len(seeds) == len(set(seeds)) == 5


@pytest.mark.parametrize("stream", STREAMS)
def test_purposes_do_not_share_a_stream(stream: str, base: Content) -> None:
    one, two = STREAMS[stream](base)
    assert not np.array_equal(one, two)


def test_each_step_is_trained_on_once_an_epoch_in_another_order(base: Content, tmp_path: Path) -> None:
    more = content(tmp_path, "preference.epochs=2", "sft.epochs=2.0")
    assert sorted(base["pair order"]) == list(range(50))
    assert more["pair order"][:50] == base["pair order"]
    assert sorted(more["pair order"][50:]) == list(range(50))
    assert more["pair order"][50:] != base["pair order"]
    one, two = more["sft order"][: len(base["sft order"])], more["sft order"][len(base["sft order"]) :]
    assert one == base["sft order"]
    assert one != two
