"""What the record says of the oracle and of preference training, computed again from stored weights, log-probs and
predictions: accuracies, gaps and their signs, shares, and from which part each comes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from by_hand import LEARNED, cell, likeliest, run, sasrec_scores, sets, sigmoid, stage_folder, student, wilson
from running import results

from rosepo_bench.base import store
from rosepo_bench.base.seeds import derive, generator
from rosepo_bench.data import candidates
from rosepo_bench.runs.cells import Cell

SETTINGS = (*LEARNED, "preference.epochs=2", "preference.lr=1e-2", "smoothings.predicted.folds=3")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SFT and RosePO, preference training long enough to move something."""
    out = tmp_path_factory.mktemp("probe")
    run(out, "--methods", "sft,rosepo", *sets(*SETTINGS))
    return out


@pytest.fixture(scope="module")
def made(out: Path) -> Cell:
    return cell(out, "rosepo", *SETTINGS)


@pytest.fixture(scope="module")
def record(out: Path) -> dict[str, Any]:
    return dict(results(out)["steam/rosepo/0"][0]["diagnostics"])


@pytest.fixture(scope="module")
def deltas(out: Path, made: Cell) -> dict[str, dict[str, np.ndarray]]:
    """s(x, y_l) − s(x, y_w) of every candidate but the target, for each user's validation step and last training step:
    ``[users, 19]`` by the oracle that did not see the user, and by the one trained on everybody."""
    data, split = made.task.data, made.task.split
    last = [[int(end) - 1] for end in split.train_end]
    seed = derive(0, "training candidates")
    listed = {
        "train": candidates.draw(data, split, "train", seed=seed, steps=last),
        "validation": candidates.draw(data, split, "validation", seed=0),
    }
    oracle = stage_folder(out, "steam.crossfit.sasrec")
    baseline = stage_folder(out, "steam.fit.sasrec") / "state.npz"
    fold = store.read_npz(oracle / "folds.npz")["fold"]
    found: dict[str, dict[str, np.ndarray]] = {"folds": {}, "everybody": {}}
    for part, examples in listed.items():
        assert examples.user.tolist() == list(range(data.users))
        for name in found:
            rows = []
            for user, step, items in zip(examples.user, examples.step, examples.candidates, strict=True):
                weights = oracle / f"fold{fold[user]}.npz" if name == "folds" else baseline
                scores, target = sasrec_scores(weights, data.sequences[user][:step]), data.sequences[user][step]
                rows.append([scores[item] - scores[target] for item in items if item != target])
            found[name][part] = np.array(rows)
    return found


def test_accuracy_is_that_of_validation_pairs(record: dict[str, Any], deltas: dict[str, Any]) -> None:
    """No two scores are equal, so that the random orientation cannot change what is right."""
    right = (deltas["folds"]["validation"] < 0).mean(axis=1)
    accuracy = record["oracle"]["accuracy"]
    assert accuracy["n"] == len(right) == 120
    assert accuracy["value"] == pytest.approx(right.mean(), abs=1e-12)
    assert (accuracy["low"], accuracy["high"]) == pytest.approx(student(right), abs=1e-9)
    assert abs(right.mean() - (deltas["folds"]["train"] < 0).mean()) > 0.005, "the parts could be mixed up"


@pytest.mark.parametrize(("oracle", "key"), [("folds", "epsilon_gap"), ("everybody", "epsilon_gap_without_folds")])
def test_the_probes_gap_is_validation_minus_training_user_by_user(
    oracle: str, key: str, record: dict[str, Any], deltas: dict[str, Any]
) -> None:
    both = deltas[oracle]
    tau = likeliest(both["validation"].ravel(), np.zeros(both["validation"].size))
    means = {part: np.minimum(sigmoid(both[part] / tau), 0.5).mean(axis=1) for part in both}
    gap, found = means["validation"] - means["train"], record["oracle"]["uniform"][key]
    assert found["value"] == pytest.approx(gap.mean(), abs=1e-6)
    assert (found["low"], found["high"]) == pytest.approx(student(gap), abs=1e-6)
    if oracle == "folds":
        assert record["oracle"]["uniform"]["tau"] == pytest.approx(tau, rel=1e-5)


def test_the_methods_gaps_are_of_its_own_pairs(record: dict[str, Any], made: Cell) -> None:
    """Mean over pairs on both sides; for the width a user's training pairs are one. ε itself: test_epsilon.py."""
    user = made.pairing.examples["train"].user
    for unfolded, key in ((False, "epsilon_gap"), (True, "epsilon_gap_without_folds")):
        validation, train = (
            (made.smoothed.unfolded_epsilon(part) if unfolded else made.smoothed.epsilon(part))[:, 0]
            for part in ("validation", "train")
        )
        by_user = np.array([train[user == one].mean() for one in np.unique(user)])
        half = 1.959964 * np.sqrt(validation.var() / len(validation) + by_user.var() / len(by_user))
        gap, found = validation.mean() - train.mean(), record["oracle"][key]
        assert [found[end] for end in ("value", "low", "high")] == pytest.approx([gap, gap - half, gap + half])
        assert abs(gap) > 1e-3


def test_epsilon_in_the_record_is_that_of_its_part(record: dict[str, Any], made: Cell) -> None:
    for key, part, n in (("epsilon", "train", 120), ("validation_epsilon", "validation", 60)):
        values, found = made.smoothed.epsilon(part), record["preference"][key]
        assert (found["mean"], found["sd"]) == pytest.approx((values.mean(), values.std()))
        edges = np.array(found["edges"])
        inside = [((values >= a) & (values < b)).sum() for a, b in itertools.pairwise(edges)]
        inside[-1] += (values == 0.5).sum()
        assert found["counts"] == inside
        assert sum(inside) == n
    assert record["preference"]["epsilon"]["mean"] != record["preference"]["validation_epsilon"]["mean"]


def test_popularitys_accuracy_is_on_the_same_turned_pairs(record: dict[str, Any], made: Cell) -> None:
    """Counts of training interactions; ties are right where the turned pair's first item came next."""
    drawn = made.task.stages.get(made.pairing.rejected)["validation"]
    taken = np.zeros(made.task.data.items, int)
    for sequence in made.task.data.sequences:
        np.add.at(taken, sequence[:-2], 1)
    target = made.pairing.examples["validation"].target
    for kind, fit in record["oracle"]["temperatures"].items():
        rows = drawn.kind[:, 0] == kind
        lost, won = taken[drawn.items[rows, 0]], taken[target[rows]]
        first_is_chosen = generator(derive(0, "orientation", kind), "orientation").random(rows.sum()) < 0.5
        right = (lost < won) | ((lost == won) & first_is_chosen)
        assert fit["popularity_accuracy"] == pytest.approx(right.mean())


@pytest.mark.parametrize(("when", "stage"), [("before", "reference.mixed"), ("after", "rosepo")])
def test_margin_accuracy_is_of_stored_log_probs(when: str, stage: str, record: dict[str, Any], out: Path) -> None:
    logps = store.read_npz(stage_folder(out, f"steam.logps.{stage}") / "logps.npz")["validation"]
    right, found = int((logps[:, 0] > logps[:, 1]).sum()), record["preference"]["margin_accuracy"][when]
    assert (found["value"], found["n"]) == (right / 60, 60)
    assert (found["low"], found["high"]) == pytest.approx(wilson(right, 60))
    other = record["preference"]["margin_accuracy"]["before" if when == "after" else "after"]
    assert other["value"] != found["value"], "before and after could be mixed up"


def test_log_probs_after_are_the_trained_models_on_validation_pairs(made: Cell, out: Path) -> None:
    """By transformers' own forward pass over one row."""
    stored = store.read_npz(stage_folder(out, "steam.logps.rosepo") / "logps.npz")["validation"]
    network = made.language.create(stage_folder(out, "steam.rosepo") / "weights.safetensors").network
    given, prompter = made.pairing.examples["validation"], made.language.prompter
    for row in (0, 17, 59):
        history = made.task.data.sequences[given.user[row]][: given.step[row]][-prompter.history :]
        for column, item in enumerate(made.pairing.titles("validation")[row]):
            prompt, response = prompter.prompt(history), prompter.response(int(item))
            tokens = torch.from_numpy(np.concatenate([prompt, response]).astype(np.int64))
            with torch.no_grad():
                logits = network(tokens[None]).logits[0].log_softmax(-1)
            alone = sum(float(logits[at - 1, tokens[at]]) for at in range(len(prompt), len(tokens)))
            assert stored[row, column] == pytest.approx(alone, abs=1e-4)


def test_changed_tops_and_pairs_seen(record: dict[str, Any], out: Path) -> None:
    own, sft = (results(out)[f"steam/{name}/0"][1]["top"] for name in ("rosepo", "sft"))
    assert record["preference"]["changed_top"] == {"share": (own != sft).mean(), "n": 120}
    assert 0 < (own != sft).mean() < 1
    assert record["preference"]["pairs_seen"] == 2 * 120
    assert (record["preference"]["sampler"], record["preference"]["loss"]) == ("mixed", "rosepo")


def test_the_number_of_probes_is_the_settings(tmp_path: Path) -> None:
    made = cell(tmp_path, "rosepo", "validation.probes=30")
    found = made.task.stages.get(made.probe.stage)
    assert found["accuracy"]["n"] == found["epsilon_gap"]["n"] == found["epsilon_gap_without_folds"]["n"] == 30
