"""From scores to a record's metrics once more in plain numpy: ranks, HR, NDCG and their intervals from predictions;
predictions from the models themselves."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from by_hand import cell, run, sasrec_scores, sets, stage_folder, student, wilson
from running import results

from rosepo_bench.data.types import Examples, Queries
from rosepo_bench.pipeline.evaluating import of_items
from rosepo_bench.pipeline.fitting import Fits
from rosepo_bench.pipeline.stages import Stages
from rosepo_bench.pipeline.task import Task
from rosepo_bench.recommenders.sasrec import SASRec
from rosepo_bench.runs.cells import Cell
from rosepo_bench.runs.methods import methods

NAMES = ("popularity", "sasrec", "zero_shot", "sft", "dpo")


class Ran(NamedTuple):
    """A finished run of every family: its folder, the cell of SFT, and the rule of scoring."""

    out: Path
    cell: Cell
    rule: str

    def predictions(self, method: str) -> dict[str, np.ndarray]:
        return results(self.out)[f"steam/{method}/0"][1]


@pytest.fixture(scope="module", params=["sum", "mean"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Under each rule; a part of the users is evaluated."""
    out, rule = tmp_path_factory.mktemp(request.param), request.param
    settings = (f"protocols=['candidates-{rule}']", "datasets.steam.users=90", "preference.lr=1e-2", "prompt.history=6")
    run(out, "--methods", ",".join(NAMES), *sets(*settings))
    return Ran(out, cell(out, "sft", *settings), rule)


@pytest.fixture(params=NAMES)
def found(request: pytest.FixtureRequest, ran: Ran) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    """A method's name, record and predictions."""
    return (request.param, *results(ran.out)[f"steam/{request.param}/0"])


def test_metrics_are_of_the_targets_places(found: tuple[str, dict, dict], ran: Ran) -> None:
    """Higher is better, and among equal scores the earlier in the list."""
    _, record, predictions = found
    metrics = record["evaluations"][f"candidates-{ran.rule}"]["metrics"]
    test, scores, n = ran.cell.task.test, predictions["scores"], 90
    places = []
    for row, at in zip(scores, test.position, strict=True):
        order = sorted(range(20), key=lambda column: (-row[column], column))
        places.append(1 + order.index(at))
    rank = np.array(places)
    np.testing.assert_array_equal(predictions["rank"], rank)
    assert len(rank) == n
    for k in (1, 5, 10):
        hits = rank <= k
        entry = metrics[f"hr@{k}"]
        assert (entry["value"], entry["n"]) == (pytest.approx(hits.sum() / n), n)
        assert (entry["low"], entry["high"]) == pytest.approx(wilson(int(hits.sum()), n))
    for k in (5, 10):
        gains = np.array([1 / math.log2(1 + place) if place <= k else 0.0 for place in places])
        entry, (low, high) = metrics[f"ndcg@{k}"], student(gains)
        expected = (gains.mean(), max(low, 0.0), min(high, 1.0), n)
        assert (entry["value"], entry["low"], entry["high"], entry["n"]) == pytest.approx(expected)
    ranked = {"hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10"}
    popular = {f"{name}@1" for name in ("arp", "percentile", "aplt", "lift", "coverage", "gini", "entropy", "orratio")}
    assert set(metrics) == ranked | popular


def test_popularity_is_that_of_the_training_parts(found: tuple[str, dict, dict], ran: Ran) -> None:
    """Of the first item of each user, and of the target."""
    _, record, predictions = found
    told = record["evaluations"][f"candidates-{ran.rule}"]["metrics"]
    data, test = ran.cell.task.data, ran.cell.task.test
    taken = [item for sequence in data.sequences for item in sequence[:-2].tolist()]
    counts = np.array([taken.count(item) for item in range(data.items)])
    top = [int(item) for item in predictions["top"]]
    assert told["arp@1"]["value"] == pytest.approx(np.mean([counts[item] for item in top]))
    below = [((counts < counts[item]).sum() + (counts == counts[item]).sum() / 2) / data.items for item in top]
    assert told["percentile@1"]["value"] == pytest.approx(np.mean(below))
    lift = np.log1p(counts[top]) - np.log1p(counts[[data.sequences[user][-1] for user in test.user]])
    assert told["lift@1"]["value"] == pytest.approx(lift.mean())
    assert (told["lift@1"]["low"], told["lift@1"]["high"]) == pytest.approx(student(lift))
    assert told["coverage@1"] == {
        "value": pytest.approx(len(set(top)) / data.items),
        "low": None,
        "high": None,
        "n": None,
    }
    often = sorted((top.count(item) for item in set(top)), reverse=True)
    assert told["orratio@1"]["value"] == pytest.approx(sum(often[:3]) / len(top))


def test_predictions_are_of_the_test_users_and_targets(found: tuple[str, dict, dict], ran: Ran) -> None:
    """The target is each user's very last item, their prompt all before it; tied where a neighbour has its time."""
    _, _, predictions = found
    data, test = ran.cell.task.data, ran.cell.task.test
    users = predictions["users"]
    assert len(set(users.tolist())) == 90 < data.users
    np.testing.assert_array_equal(users, test.user)
    for row, user in enumerate(users):
        assert test.candidates[row, test.position[row]] == data.sequences[user][-1]
        best = max(range(20), key=lambda column: (predictions["scores"][row, column], -column))
        assert predictions["top"][row] == test.candidates[row, best]
        assert predictions["top_titles"][row] == data.titles[predictions["top"][row]]
        assert predictions["user_ids"][row] == data.user_ids[user]
        assert predictions["candidates"][row].tolist() == test.candidates[row].tolist()
        assert predictions["tied"][row] == (data.times[user][-1] == data.times[user][-2])
    assert 0 < predictions["tied"].sum() < 90


def test_popularity_counts_training_interactions(ran: Ran) -> None:
    """As log-utilities, which an oracle needs: in the order of the counts, and equal where they are."""
    data, test = ran.cell.task.data, ran.cell.task.test
    taken = [item for sequence in data.sequences for item in sequence[:-2].tolist()]
    expected = [[taken.count(item) for item in row] for row in test.candidates]
    scores = ran.predictions("popularity")["scores"]
    np.testing.assert_array_equal(scores, np.log1p(expected).astype(np.float32))
    np.testing.assert_array_equal(np.round(np.expm1(scores.astype(float)), 2), expected)
    assert any(len(set(row)) < 20 for row in expected), "no ties, nothing of their rule is tested"


def test_sasrec_scores_come_from_its_weights_and_whole_histories(ran: Ran) -> None:
    data, test = ran.cell.task.data, ran.cell.task.test
    weights = stage_folder(ran.out, "steam.fit.sasrec") / "state.npz"
    scores = ran.predictions("sasrec")["scores"]
    for row in (0, 31, 89):
        expected = sasrec_scores(weights, data.sequences[test.user[row]][:-1])[test.candidates[row]]
        np.testing.assert_allclose(scores[row], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("method", "stage"), [("zero_shot", ""), ("sft", "steam.sft"), ("dpo", "steam.dpo")])
def test_a_language_models_scores_are_those_of_its_own_weights(method: str, stage: str, ran: Ran) -> None:
    """Three users' candidates by transformers' own forward pass, title by title, the sum or the mean over the title's
    tokens (end token among them)."""
    made, rule = ran.cell, ran.rule
    weights = stage_folder(ran.out, stage) / "weights.safetensors" if stage else None
    network, prompter = made.language.create(weights).network, made.language.prompter
    data, test = made.task.data, made.task.test
    starts = np.maximum(0, test.step - 6)
    assert (test.step > 6).any()
    scores = ran.predictions(method)["scores"]
    spread = []
    for row in (0, 44, 89):
        prompt = prompter.prompt(data.sequences[test.user[row]][starts[row] : test.step[row]])
        for column, item in enumerate(test.candidates[row]):
            tokens = torch.from_numpy(np.concatenate([prompt, prompter.response(item)]).astype(np.int64))
            with torch.no_grad():
                logits = network(tokens[None]).logits[0].double().log_softmax(-1)
            each = [float(logits[at - 1, tokens[at]]) for at in range(len(prompt), len(tokens))]
            assert scores[row, column] == pytest.approx(sum(each) / (len(each) if rule == "mean" else 1), abs=1e-4)
            spread.append(scores[row, column])
    assert np.ptp(spread) > 0.1


def test_methods_are_told_apart(ran: Ran) -> None:
    """Scores of one method in another's record would show: no two methods' are alike."""
    scores = [ran.predictions(name)["scores"] for name in NAMES]
    for one in range(len(NAMES)):
        for two in range(one):
            assert np.abs(scores[one] - scores[two]).max() > 1e-2, (NAMES[one], NAMES[two])


def test_recommenders_read_whole_histories(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer ones than the micro profile has: a prompt's window is the language model's alone. And nobody reads the
    target: what is queried has no answers."""
    sequences = [np.arange(60, dtype=np.int32), np.arange(100, 190, dtype=np.int32)]
    user, step, none = np.array([1, 0]), np.array([70, 59]), np.zeros(2, np.int64)
    examples = Examples(user, step, step - 6, np.zeros((2, 1), np.int32), step, none)
    monkeypatch.setattr(Task, "data", SimpleNamespace(sequences=sequences))
    found = ran.cell.task.queries(examples)
    assert [history.tolist() for history in found.histories] == [list(range(100, 170)), list(range(59))]
    assert not hasattr(found, "target")
    assert [history.base for history in found.histories] == [None, None]


def test_recommenders_answer_the_queries_of_the_test_users(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole histories, the test item not among them, and the frozen lists."""
    seen: list[Any] = []

    def spy(oracle: SASRec, state: Any, queries: Queries, items: np.ndarray) -> np.ndarray:
        seen.append((queries, items))
        return np.zeros(items.shape)

    made, out = ran.cell, ran.out / "spied"
    monkeypatch.setattr(SASRec, "scores", spy)
    monkeypatch.setattr(made.task, "stages", Stages(out))
    model = replace(methods()["sasrec"].model, hidden=8, epochs=1)
    made.task.stages.get(of_items(Fits(made.task), "sasrec", model, made.shared.protocols[0]))
    ((queries, items),) = seen
    test, data = made.task.test, made.task.data
    assert [h.tolist() for h in queries.histories] == [data.sequences[u][:-1].tolist() for u in test.user]
    np.testing.assert_array_equal(items, test.candidates)
