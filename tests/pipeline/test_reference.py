"""Reference log-probs: what is kept is what the reference model says, is computed anew when anything that it depends
on changes, and the model is gone before preference training."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import MICRO
from torch import nn

from rosepo_bench import cli
from rosepo_bench.base.config import RunConfig
from rosepo_bench.base.configure import parse_setting, read_profile, set_key, validate
from rosepo_bench.engine import forest
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.ops import library
from rosepo_bench.engine.prompts.prompter import Prompter
from rosepo_bench.engine.training.steps import TrainingPairs
from rosepo_bench.pipeline import alignment, language, pairing
from rosepo_bench.runs.cells import Cell
from rosepo_bench.runs.plan import Places, cells


def run(out: Path, *settings: str) -> None:
    """DPO on the micro profile, in this process."""
    line = ["run", "--methods", "dpo", "--profile", str(MICRO), "--out", str(out), "--cache-dir", str(out / "cache")]
    assert cli.main([*line, "--offline", *(part for setting in settings for part in ("--set", setting))]) == 0


def cell(out: Path, *settings: str, method: str = "dpo") -> Cell:
    table = {**read_profile(str(MICRO)), "methods": [method]}
    for setting in settings:
        set_key(table, *parse_setting(setting))
    (found,) = cells(validate(table, RunConfig), Places(out, None, out / "cache", offline=True))
    return found


def key(out: Path, *settings: str, method: str = "dpo") -> str:
    return cell(out, *settings, method=method).reference.key


def watch(monkeypatch: pytest.MonkeyPatch, look: Callable[..., None]) -> None:
    """Calls ``look`` with the arguments of ``train_preference`` before it begins."""
    train = alignment.train_preference

    def watched(*arguments: Any, **options: Any) -> Any:
        look(*arguments)
        return train(*arguments, **options)

    monkeypatch.setattr(alignment, "train_preference", watched)


@torch.no_grad()
def alone(network: nn.Module, prompt: np.ndarray, response: np.ndarray) -> float:
    """The response's log-prob by transformers' own forward pass over one row: no forest, no operator of ours."""
    logits = network(torch.from_numpy(np.concatenate([prompt, response]).astype(np.int64))[None]).logits[0]
    before = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return float(before.gather(1, torch.from_numpy(response.astype(np.int64))[:, None]).sum())


@pytest.mark.parametrize("setting", ["prompt.candidates=false", "prompt.candidates=true"])
def test_kept_log_probs_are_those_of_the_model_that_training_begins_with(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared, shown = [], []

    def look(model: LanguageModel, prompter: Prompter, sequences: list[Any], pairs: TrainingPairs, *_: Any) -> None:
        given = pairs.examples
        for row in range(len(given)):
            own, step = sequences[given.user[row]], given.step[row]
            latest = len(own) - 3  # the last training step, whose prompt has all six items
            latest -= (latest - step) // 3 * 3  # others begin in groups of three, half of a prompt
            history = own[max(0, latest - 6) : step]
            shown.append(len(history))
            prompt = prompter.prompt(history, given.candidates[row])
            live = [alone(model.network, prompt, prompter.response(item)) for item in pairs.titles[row]]
            assert pairs.reference is not None
            compared.append((pairs.reference[row], live))

    watch(monkeypatch, look)
    run(tmp_path, setting, "prompt.history=6")
    kept, live = np.array(compared).transpose(1, 0, 2)
    assert len(live) == 120
    assert {4, 5, 6} <= set(shown)
    assert np.ptp(live) > 1
    np.testing.assert_allclose(kept, live, rtol=0, atol=1e-4)


def test_the_reference_model_is_gone_before_training_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By counted references alone: a collector that runs at its own time would leave it beside the trained one."""
    made: list[weakref.ref[nn.Module]] = []
    alive: list[int] = []
    create = language.Language.create

    def created(self: language.Language, weights: Path | None = None) -> LanguageModel:
        model = create(self, weights)
        made.append(weakref.ref(model.network))
        return model

    def look(model: LanguageModel, *_: Any) -> None:
        networks = [network for network in (ref() for ref in made) if network is not None]
        assert networks[-1] is model.network
        alive.append(len(networks))

    monkeypatch.setattr(language.Language, "create", created)
    watch(monkeypatch, look)
    gc.disable()
    try:
        run(tmp_path)
    finally:
        gc.enable()
    assert alive == [1]
    assert len(made) >= 3  # SFT's, the reference, the one that is trained


OTHERS = [
    "sft.lr=1e-3",
    "model.layers=2",
    "model.attention=dense",
    "first_seed=1",
    "prompt.history=5",
    "preference.pairs=90",
    "preference.steps_per_user=2",
    "preference.validation_pairs=40",
    "datasets.steam.core=4",
    "scoring.batch_tokens=3000",
]
SAME = [
    "method.*.loss.beta=0.3",
    "preference.lr=1e-4",
    "preference.batch=8",
    "smoothings.predicted.folds=3",
    "oracles.sasrec.epochs=1",
]


def test_the_key_holds_all_that_log_probs_depend_on_and_nothing_else(tmp_path: Path) -> None:
    plain = key(tmp_path)
    assert key(tmp_path) == plain
    assert {setting for setting in OTHERS if key(tmp_path, setting) == plain} == set()
    assert {setting for setting in SAME if key(tmp_path, setting) != plain} == set()
    assert key(tmp_path, method="rosepo-semantic") != plain  # other rejected items


@pytest.mark.parametrize("built", ["operators", "forest"])
def test_another_build_makes_another_key(built: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = key(tmp_path)
    if built == "forest":
        monkeypatch.setattr(forest, "build_id", lambda: "0" * 16 + "-" + "0" * 8)
    else:
        facts = library.info()
        monkeypatch.setattr(library, "info", lambda: {**facts, "build_id": "0" * 16 + "-" + "0" * 8})
    assert key(tmp_path) != plain


def test_what_is_stale_is_computed_anew_and_nothing_else_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[str] = []
    logps = pairing.title_logps

    def counted(*arguments: Any, label: str, **options: Any) -> Any:
        computed.append(label)
        return logps(*arguments, label=label, **options)

    monkeypatch.setattr(pairing, "title_logps", counted)
    passes, kept = [], []
    for setting in ("method.*.loss.beta=1.0", "method.*.loss.beta=0.5", "sft.lr=1e-3", "preference.pairs=90"):
        computed.clear()
        run(tmp_path, setting)
        passes.append(computed.count("steam train pairs"))
        made = cell(tmp_path, setting)
        kept.append(made.task.stages.get(made.reference)["train"])
    assert passes == [1, 0, 1, 1]
    plain, same, other_weights, other_pairs = kept
    np.testing.assert_array_equal(plain, same)
    assert (np.abs(plain - other_weights) > 1e-3).mean() > 0.9
    assert other_pairs.shape == (90, 2)
