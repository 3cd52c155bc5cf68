"""Every option of the schema that changes how a run works is run once, and acts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import MICRO, results
from safetensors.torch import load_file

from rosepo_bench import cli

DTYPES = ("float32", "bfloat16")
Found = dict[str, tuple[dict[str, Any], dict[str, np.ndarray]]]


def run(out: Path, *settings: str, methods: str = "sft,rosepo") -> Found:
    """The records of a run in this process."""
    line = ["run", "--methods", methods, "--profile", str(MICRO), "--out", str(out), "--offline"]
    for setting in settings:
        line += ["--set", setting]
    assert cli.main([*line, "--cache-dir", str(out / "cache")]) == 0
    return results(out)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return run(tmp_path_factory.mktemp("plain"))


def scores(found: Found, method: str) -> np.ndarray:
    return found[f"steam/{method}/0"][1]["scores"]


@pytest.mark.parametrize(
    "setting",
    [
        "samplers.self_hard.items=catalogue",
        "samplers.semantic.anchor=target",
        "samplers.popularity.exponent=0.0",
        "method.*.loss.beta=0.1",
        "preference.epochs=2",
        "preference.trees=prompt",
        "smoothings.predicted.correct_for_sampler=false",
        "smoothings.predicted.folds=3",
        'method.rosepo.loss="robust"',
        "method.rosepo.smoothing=shuffled",
        "method.rosepo.smoothing.oracle=popularity",
        "method.rosepo.sampler=uniform",
        "method.rosepo.rounds=2",
    ],
)
def test_preference_options_reach_the_method_and_not_sft(plain: Found, setting: str, tmp_path: Path) -> None:
    extra = ["method.rosepo.smoothing.cap=0.4"] if "robust" in setting else []
    found = run(tmp_path, setting, *extra)
    assert np.array_equal(scores(found, "sft"), scores(plain, "sft"))
    assert not np.array_equal(scores(found, "rosepo"), scores(plain, "rosepo"))


def test_sliding_windows_reach_the_method_and_not_sft(tmp_path: Path) -> None:
    anchored, sliding = (run(tmp_path / n, "prompt.history=3", f"prompt.anchor={n}") for n in ("3", "1"))
    assert np.array_equal(scores(anchored, "sft"), scores(sliding, "sft"))
    assert not np.array_equal(scores(anchored, "rosepo"), scores(sliding, "rosepo"))


def test_the_reference_loss_trains_to_the_same_model(plain: Found, tmp_path: Path) -> None:
    found = run(tmp_path, "model.impl=reference")
    np.testing.assert_allclose(scores(found, "rosepo"), scores(plain, "rosepo"), rtol=0, atol=1e-3)


def test_candidates_in_the_prompt(plain: Found, tmp_path: Path) -> None:
    found = run(tmp_path, "prompt.candidates=true", "prompt.history=5")
    assert not np.array_equal(scores(found, "sft"), scores(plain, "sft"))
    assert found["steam/rosepo/0"][0]["diagnostics"]["preference"]["pairs_seen"] == 120


def test_mean_scores_are_sums_over_lengths(plain: Found, tmp_path: Path) -> None:
    found = run(tmp_path, "protocols=['candidates-mean']", methods="sft")
    lengths = scores(plain, "sft") / scores(found, "sft")
    np.testing.assert_allclose(lengths, np.round(lengths), atol=1e-3)
    assert found["steam/sft/0"][0]["evaluations"]["candidates-mean"]["facts"]["score"] == "mean"


def test_temporal_split(tmp_path: Path) -> None:
    found = run(tmp_path, "datasets.steam.split=temporal", "datasets.steam.core=3", methods="sasrec,sft,rosepo")
    record = found["steam/rosepo/0"][0]
    assert record["data"]["split"] == "temporal"
    assert 0 < record["data"]["users"] < 150


def test_given_costs_and_budgets_pack_otherwise_to_the_same_model(plain: Found, tmp_path: Path) -> None:
    found = run(tmp_path, "model.square_cost=0.02", "batch_tokens=150", "scoring.batch_tokens=250")
    np.testing.assert_allclose(scores(found, "rosepo"), scores(plain, "rosepo"), rtol=0, atol=1e-3)
    assert not np.array_equal(scores(found, "rosepo"), scores(plain, "rosepo"))  # sums in another order


@pytest.mark.parametrize("training", ["full", "lora"])
def test_bfloat16_trains_what_float32_trains(training: str, tmp_path: Path) -> None:
    """Within what 8 bits leave; DPO begins at log 2 there, too, as its reference went through the same passes."""
    # What LoRA trains of a model that knows nothing is little: its rate is high, so that both are seen to move.
    settings = [f"model.training={training}", *(["sft.lr=1e-2", "preference.lr=5e-3"] if training == "lora" else [])]
    both = {
        name: run(tmp_path / name, *settings, f"model.dtype={name}", methods="zero_shot,sft,dpo") for name in DTYPES
    }
    short, exact = both["bfloat16"], both["float32"]
    error = np.abs(scores(short, "sft") - scores(exact, "sft"))
    learnt = np.abs(scores(exact, "sft") - scores(exact, "zero_shot"))
    assert error.max() > 1e-3
    assert error.mean() < 0.1 * learnt.mean()
    for name, allowed in (("float32", 1e-6), ("bfloat16", 1e-3)):
        for stage in ("sft", "dpo"):
            (weights,) = tmp_path.glob(f"{name}/stages/steam.{stage}-*/weights.safetensors")
            assert {p.dtype for p in load_file(weights).values()} == {torch.float32}
        report = json.loads(weights.with_name("report.json").read_text())
        assert report["first_loss"] == pytest.approx(np.log(2), abs=allowed)
        assert abs(report["last_loss"] - report["first_loss"]) > 0.01


def test_a_subset_of_users_and_a_shorter_list(tmp_path: Path) -> None:
    found = run(tmp_path, "datasets.steam.users=40", "datasets.steam.candidates=10", methods="sft,dpo")
    assert scores(found, "sft").shape == (40, 10)


def test_seeds_are_averaged_in_the_report(tmp_path: Path) -> None:
    found = run(tmp_path, "seeds=2", methods="popularity,sft,dpo")
    assert {cell.rpartition("/")[2] for cell in found} == {"0", "1"}
    text = (tmp_path / "report.md").read_text()
    assert "seeds 0, 1" in text or "seeds 0-1" in text or "seed 0, 1" in text
