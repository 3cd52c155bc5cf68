"""Ranking as a run does it: prompts of examples, adapters, and a trained model on real titles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from agreement import compare
from running import MICRO

from rosepo_bench.base.config import ModelConfig, RunConfig
from rosepo_bench.base.configure import read_profile, validate
from rosepo_bench.base.seeds import generator
from rosepo_bench.data.types import Examples
from rosepo_bench.engine.model.language_model import create
from rosepo_bench.engine.prompts.examples import example_prompts
from rosepo_bench.engine.prompts.prompter import TEMPLATES, Prompter
from rosepo_bench.engine.prompts.tokens import train_tiny
from rosepo_bench.engine.ranking.catalogue import catalogue_scores
from rosepo_bench.engine.ranking.scoring import title_scores
from rosepo_bench.engine.ranking.search import rank_best_first
from rosepo_bench.engine.ranking.trie import build
from rosepo_bench.evaluation.metrics.base import Predictions, measure
from rosepo_bench.runs.plan import Places, cells

WORDS = ["Iron", "Glass", "Quiet", "Harbor", "Orchard", "Ember", "of", "the", "II"]
TEMPLATE = TEMPLATES["movies"]


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("score", ["sum", "mean"])
def test_the_catalogue_scores_candidates_as_candidates(listed: bool, score: str) -> None:
    """The same prompts, the same numbers: also with LoRA layers, and where a user has several examples."""
    draw = generator(0, "ranking")
    titles = [f"{' '.join(draw.choice(WORDS, size=3))} ({1950 + n})" for n in range(30)]
    encoder = train_tiny([*titles, *TEMPLATE.words()], 400)
    prompter = Prompter(TEMPLATE, encoder, titles, history=4, candidates=listed)
    model = create(ModelConfig(hidden=32, layers=2, heads=2, training="lora"), encoder, seed=0)
    with torch.no_grad():  # fresh adapters add nothing
        for parameter in model.network.parameters():
            parameter.normal_(0, 0.3)
    sequences = [draw.integers(0, 30, size=9).astype(np.int32) for _ in range(4)]
    user, step = np.array([0, 0, 1, 2, 3, 3]), np.array([5, 8, 1, 8, 3, 4])
    candidates = np.stack([draw.permutation(30)[:8] for _ in user]).astype(np.int32)
    start = np.array([1, 5, 0, 4, 0, 0])
    examples = Examples(user, step, start, candidates, candidates[:, 0].astype(np.int64), np.zeros(6, np.int64))
    wanted = title_scores(
        model, prompter, sequences, examples, examples.candidates, score=score, batch_tokens=500, label="test"
    )
    prompts = example_prompts(prompter, sequences, examples)
    found = catalogue_scores(model, build(prompter.titles), prompts, score=score, batch_tokens=500, label="test")
    np.testing.assert_allclose(np.take_along_axis(found, candidates, axis=1), wanted, rtol=1e-5, atol=1e-5)


def test_best_first_is_the_full_ranking_on_movielens(ml100k_cache: Path, tmp_path: Path) -> None:
    """A small model after a few steps of training, on some of the real test users and all titles."""
    table = read_profile(str(MICRO))
    table["datasets"] = {"movielens": {"source": "ml-100k"}}
    table["model"] |= {"hidden": 48, "layers": 1, "vocabulary": 3000}
    table |= {"methods": ["sft"], "sft": {"epochs": 0.06, "batch": 128, "lr": 1e-2}}
    (cell,) = cells(validate(table, RunConfig), Places(tmp_path, None, ml100k_cache, offline=True))
    language, task = cell.language, cell.task
    model = language.create(task.stages.get(cell.sft).weights)
    test = task.test.take(np.arange(0, 943, 190))
    prompts = example_prompts(language.prompter, task.data.sequences, test)
    trie = build(language.prompter.titles)
    for score in ("sum", "mean"):
        found = compare(model, trie, prompts, k=10, score=score, batch_tokens=4096, label="test")
        assert found.equal.all()
        assert (found.share < 0.9).all()
    ranking = rank_best_first(model, trie, prompts, k=10, score="sum", batch_tokens=4096, label="test")
    ranks = Predictions(test.user, rank=ranking.ranks(test.target))
    assert measure(ranks, {"rank"})["hr@10"]["n"] == len(test)
