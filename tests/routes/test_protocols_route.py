"""From a run's models to the catalogue's first ten and to free text: against every title scored, and against greedy
decoding by transformers' own forward pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from by_hand import cell, run, sets, stage_folder
from running import results

from rosepo_bench.engine.ranking.scoring import title_scores
from rosepo_bench.pipeline import evaluating
from rosepo_bench.pipeline.ranking import longest
from rosepo_bench.runs.cells import Cell

PROTOCOLS = ("candidates-sum", "catalogue-sum", "catalogue-mean", "generate")
SETTINGS = (
    f"protocols={list(PROTOCOLS)}", "datasets.steam.users=40", "sft.lr=1e-2", "sft.epochs=40.0", "model.vocabulary=300"
)  # fmt: skip
METHODS = ("popularity", "sasrec", "sft")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cell]:
    out = tmp_path_factory.mktemp("protocols")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluating, "SCORES", 1_000)  # users in several parts
        run(out, "--methods", ",".join(METHODS), *sets(*SETTINGS))
    return out, cell(out, "sft", *SETTINGS)


def stored(out: Path, method: str, protocol: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    record, arrays = results(out, protocol)[f"steam/{method}/0"]
    return record["evaluations"][protocol], arrays


def expected_scores(method: str, made: Cell, rule: str) -> np.ndarray:
    """Every item's score for every test user, by other code than the protocol's."""
    task = made.task
    queries = task.queries(task.test)
    everything = np.tile(np.arange(task.data.items), (len(queries), 1))
    if method == "popularity":
        taken = [item for own in task.data.sequences for item in own[:-2].tolist()]
        return np.tile(np.bincount(taken, minlength=task.data.items).astype(float), (len(queries), 1))
    model = made.language.create(stage_folder(task.stages.out, "steam.sft") / "weights.safetensors")
    return title_scores(
        model, made.language.prompter, longest(queries), queries, everything, score=rule, batch_tokens=4096, label=""
    )


@pytest.mark.parametrize("protocol", ["catalogue-sum", "catalogue-mean"])
@pytest.mark.parametrize("method", ["popularity", "sft"])
def test_the_first_ten_are_those_of_all_items_but_the_history(
    ran: tuple[Path, Cell], method: str, protocol: str
) -> None:
    out, made = ran
    told, found = stored(out, method, protocol)
    data, test = made.task.data, made.task.test
    scores = expected_scores(method, made, protocol.rpartition("-")[2])
    for row, user in enumerate(test.user.tolist()):
        history = data.sequences[user][:-1].tolist()
        own = scores[row].copy()
        own[history] = -np.inf
        np.testing.assert_allclose(own[found["items"][row]], -np.sort(-own)[:10], atol=1e-4)
        assert len({*found["items"][row].tolist()} - {*history}) == 10
        place = np.flatnonzero(found["items"][row] == data.sequences[user][-1])
        assert found["rank"][row] == (place[0] + 1 if len(place) else 11)
    assert (found["rank"] == 11).any()
    assert (found["rank"] < 11).any()
    assert told["metrics"]["hr@10"]["value"] == pytest.approx((found["rank"] <= 10).mean())


def test_text_is_what_the_model_writes_and_is_judged_against_the_titles(ran: tuple[Path, Cell]) -> None:
    out, made = ran
    told, found = stored(out, "sft", "generate")
    data, test, prompter = made.task.data, made.task.test, made.language.prompter
    model = made.language.create(stage_folder(out, "steam.sft") / "weights.safetensors")
    limit = 2 * max(map(len, prompter.titles))
    for row, user in enumerate(test.user.tolist()):
        written = prompter.prompt(data.sequences[user][test.start[row] : -1]).tolist()
        begun = len(written)
        while len(written) < begun + limit:
            with torch.no_grad():
                written.append(int(model.network(torch.tensor([written])).logits[0, -1].argmax()))
            if written[-1] == model.encoder.end:
                break
        text = model.encoder.decode(written[begun:-1]) if written[-1] == model.encoder.end else "…"
        assert found["text"][row] == text
        named = data.titles.index(text) if text in data.titles else -1
        assert found["named"][row] == named
        assert found["seen"][row] == (named in data.sequences[user][:-1].tolist())
    assert 0 < (found["named"] < 0).sum() < len(found["named"]), "both kinds, or nothing is tested"
    assert found["seen"].any()
    metrics = {name: one["value"] for name, one in told["metrics"].items()}
    assert metrics == pytest.approx(
        {
            "valid": (found["named"] >= 0).mean(),
            "out-of-catalogue": (found["named"] < 0).mean(),
            "seen": found["seen"].mean(),
        }
    )


def test_recommenders_write_nothing_and_are_asked_by_the_other_protocols(ran: tuple[Path, Cell]) -> None:
    for method in METHODS:
        record, _ = results(ran[0], "candidates-sum")[f"steam/{method}/0"]
        assert set(record["evaluations"]) == {*PROTOCOLS} - ({"generate"} if method != "sft" else set())


def test_a_method_that_no_protocol_can_ask_is_refused_before_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, "--methods", "popularity,sft", *sets('protocols=["generate"]'), status=2)
    assert "popularity: none of the protocols can ask it (generate needs texts)" in capsys.readouterr().err
    assert not (tmp_path / "stages").exists()


def test_candidates_in_the_prompt_allow_to_say_what_is_correct(tmp_path: Path) -> None:
    settings = (
        'protocols=["generate"]',
        "prompt.candidates=true",
        "datasets.steam.users=20",
        "datasets.steam.candidates=4",
    )
    run(tmp_path, "--methods", "sft", *sets(*settings, "sft.steps=5"))
    told, found = stored(tmp_path, "sft", "generate")
    among = (cell(tmp_path, "sft", *settings).task.test.candidates == found["named"][:, None]).any(axis=1)
    np.testing.assert_array_equal(found["valid"], among)
    assert set(told["metrics"]) == {"valid", "out-of-catalogue", "seen", "correct"}
