"""Every ranking of the catalogue against titles scored one by one, on every architecture that is let in."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from agreement import compare
from equality import CASES, case_name
from small_models import CONTEXT, MORE, VOCABULARY, language_model, network
from torch import nn

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import generator
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.ranking import catalogue, search
from rosepo_bench.engine.ranking.beam import rank_beam_approximate
from rosepo_bench.engine.ranking.catalogue import catalogue_scores, rank_all
from rosepo_bench.engine.ranking.search import rank_best_first
from rosepo_bench.engine.ranking.trie import Trie, build

END = VOCABULARY - 1
BATCH: dict[str, Any] = {"batch_tokens": 400, "label": "test"}


def world(seed: int, titles: int = 80, prompts: int = 6) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Titles that share beginnings and end with the end token (two are equal), prompts of all lengths."""
    draw = generator(seed, "catalogue")
    made = [
        np.concatenate([draw.integers(1, 6, size=2), draw.integers(1, END, size=int(draw.integers(0, 7))), [END]])
        for _ in range(titles - 1)
    ]
    made.insert(titles // 2, made[0])
    return made, [draw.integers(1, VOCABULARY, size=int(n)) for n in draw.integers(1, CONTEXT - 12, size=prompts)]


def one_by_one(model: nn.Module, prompts: list[np.ndarray], titles: list[np.ndarray], attention: str) -> np.ndarray:
    """Summed log-probs ``[n, items]``: each title under each prompt is a sequence of its own, read without a cache."""
    model.set_attn_implementation(attention)
    found = np.empty((len(prompts), len(titles)))
    with torch.no_grad():
        for row, prompt in enumerate(prompts):
            for item, title in enumerate(titles):
                ids = torch.from_numpy(np.concatenate([prompt, title]).astype(np.int64))[None]
                logps = model(ids[:, :-1], use_cache=False).logits[0, len(prompt) - 1 :].log_softmax(-1)
                found[row, item] = logps[torch.arange(len(title)), ids[0, len(prompt) :]].double().sum()
    return found


def best(scores: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_every_title_scores_as_if_read_alone(case: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """fp64: 1e-10. fp32: no further from fp64 than twice the separate sequences' own error plus 4 ulp."""
    monkeypatch.setattr(catalogue, "PIECE", 23)
    titles, prompts = world(CASES.index(case), titles=24, prompts=4)
    trie, double = build(titles), network(case[0], torch.float64, **case[1])
    exact = one_by_one(double, prompts, titles, "textbook")
    found = catalogue_scores(language_model(double), trie, prompts, score="sum", **BATCH)
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-10)
    mean = catalogue_scores(language_model(double), trie, prompts, score="mean", **BATCH)
    np.testing.assert_allclose(mean, exact / [len(title) for title in titles], rtol=0, atol=1e-10)
    single = copy.deepcopy(double).float()
    own = abs(one_by_one(single, prompts, titles, "eager" if case[0] == "gemma2" else "sdpa") - exact).max()
    found = catalogue_scores(language_model(single), trie, prompts, score="sum", **BATCH)
    assert abs(found - exact).max() <= 2 * own + 4 * np.spacing(np.float32(abs(exact).max()))


@pytest.mark.parametrize("kind", MORE)
def test_every_title_scores_as_if_read_alone_by_more_kinds(kind: str) -> None:
    titles, prompts = world(1, titles=10, prompts=3)
    model = network(kind, torch.float64)
    exact = one_by_one(model, prompts, titles, "textbook")
    found = catalogue_scores(language_model(model), build(titles), prompts, score="sum", **BATCH)
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-10)


@pytest.mark.parametrize("score", ["sum", "mean"])
@pytest.mark.parametrize("case", CASES[::2], ids=case_name)
def test_best_first_is_the_full_ranking(
    case: tuple[str, dict[str, Any]], score: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles, prompts = world(20 + CASES.index(case), titles=150)
    trie, model = build(titles), language_model(network(case[0], torch.float64, **case[1]))
    scores = catalogue_scores(model, trie, prompts, score=score, **BATCH)
    for k, step, patience in ((1, 4, 0), (10, 24, 10**6), (len(titles), 24, 5)):
        monkeypatch.setattr(search, "STEP", step)
        monkeypatch.setattr(search, "PATIENCE", (patience, 0))
        found = rank_best_first(model, trie, prompts, k=k, score=score, **BATCH)
        np.testing.assert_array_equal(found.items, best(scores, k))
        wanted = np.take_along_axis(scores, found.items, axis=1)
        np.testing.assert_allclose(found.scores, wanted, rtol=0, atol=1e-10)
        assert score == "mean" or k == len(titles) or (found.share < 0.9).all()
    assert (found.share == 1).all()  # all titles in order: nothing is left unread


def loosened(trie: Trie) -> Trie:
    """With the bound of means that looks right and is not: the mean so far."""
    return replace(trie, longest=np.where(trie.depth == 0, trie.longest, trie.depth))


def test_the_bound_of_means_is_needed() -> None:
    """Sum and mean rank otherwise here; a mean bounded by the prefix's own length would lose long likely titles."""
    titles, prompts = world(3, titles=150)
    trie, model = build(titles), language_model(network("llama", torch.float64))
    found = {score: rank_best_first(model, trie, prompts, k=10, score=score, **BATCH) for score in ("sum", "mean")}
    assert (found["sum"].items != found["mean"].items).any(axis=1).all()
    lost = rank_best_first(model, loosened(trie), prompts, k=10, score="mean", **BATCH)
    assert (lost.items != found["mean"].items).any()


def test_scores_do_not_depend_on_the_batch() -> None:
    titles, prompts = world(4, prompts=9)
    trie, model = build(titles), language_model(network("qwen2", torch.float64))
    wanted: dict[str, Any] = {"score": "sum", "label": "test"}
    alone = np.concatenate(
        [catalogue_scores(model, trie, [prompt], batch_tokens=len(prompt), **wanted) for prompt in prompts]
    )
    for batch_tokens in (90, 1000, 10**6):
        found = catalogue_scores(model, trie, prompts, batch_tokens=batch_tokens, **wanted)
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-10)
        for rank in (rank_best_first, rank_all):
            ranking = rank(model, trie, prompts, k=7, batch_tokens=batch_tokens, **wanted)
            np.testing.assert_array_equal(ranking.items, best(alone, 7))
        beam = rank_beam_approximate(model, trie, prompts, k=7, width=9, batch_tokens=batch_tokens, **wanted)
        for prompt, items in zip(prompts, beam.items, strict=True):
            one = rank_beam_approximate(model, trie, [prompt], k=7, width=9, batch_tokens=len(prompt), **wanted)
            np.testing.assert_array_equal(items, one.items[0])


def test_items_left_out_never_rank_and_equal_titles_stand_in_order() -> None:
    titles, prompts = world(5)
    trie, model = build(titles), language_model(network("gpt2", torch.float64))
    scores = catalogue_scores(model, trie, prompts, score="sum", **BATCH)
    exclude = [best(scores[[row]], 70)[0][::2][: 5 * row] for row in range(len(prompts))]
    for row, items in enumerate(exclude):
        scores[row, items] = -np.inf
    full = rank_all(model, trie, prompts, k=12, score="sum", exclude=exclude, **BATCH)
    found = rank_best_first(model, trie, prompts, k=12, score="sum", exclude=exclude, **BATCH)
    np.testing.assert_array_equal(full.items, best(scores, 12))
    np.testing.assert_array_equal(found.items, full.items)
    whole = rank_best_first(model, trie, prompts, k=len(titles), score="sum", **BATCH)
    same = [item for item, title in enumerate(titles) if np.array_equal(title, titles[0])]
    assert len(same) >= 2
    for ranked in whole.items.tolist():
        assert ranked[ranked.index(same[0]) :][: len(same)] == same


class Counted:
    """Counts the tokens that a model reads and the rows that meet its vocabulary."""

    def __init__(self, model: LanguageModel) -> None:
        self.tokens = self.rows = 0
        model.network.base_model.register_forward_pre_hook(self._read, with_kwargs=True)
        model.head.register_forward_pre_hook(self._projected)

    def _read(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.tokens += kwargs["input_ids"].numel()

    def _projected(self, module: nn.Module, args: Any) -> None:
        self.rows += len(args[0])


def test_each_row_meets_the_vocabulary_once() -> None:
    titles, prompts = world(6, prompts=1)
    trie, model = build(titles), language_model(network("llama", torch.float64))
    counted = Counted(model)
    rank_all(model, trie, prompts, k=3, score="sum", **BATCH)
    assert counted.rows == 1 + len(trie.inner)  # the prompt's last token, and every node that has children
    counted.rows = counted.tokens = 0
    found = rank_best_first(model, trie, prompts, k=3, score="sum", **BATCH)
    assert counted.rows == 1 + found.visited[0]
    assert counted.tokens == len(prompts[0]) + found.visited[0]
    assert 0 < found.visited[0] < len(trie.inner) == found.readable


def test_a_beam_is_approximate_and_as_wide_as_the_catalogue_exact() -> None:
    titles, prompts = world(7, titles=120, prompts=8)
    trie, model = build(titles), language_model(network("gpt_neox", torch.float64))
    for score in ("sum", "mean"):
        scores = catalogue_scores(model, trie, prompts, score=score, **BATCH)
        wide = rank_beam_approximate(model, trie, prompts, k=10, width=len(titles), score=score, **BATCH)
        np.testing.assert_array_equal(wide.items, best(scores, 10))
        narrow = rank_beam_approximate(model, trie, prompts, k=10, width=10, score=score, **BATCH)
        np.testing.assert_allclose(
            np.take_along_axis(scores, narrow.items, axis=1), narrow.scores, rtol=0, atol=1e-10
        )  # what it finds is scored exactly, and ten are found
        assert (np.diff(narrow.scores) <= 0).all()
        assert (narrow.items != wide.items).any()
        assert (narrow.visited < wide.visited).all()
    everything = [np.arange(1, len(titles))] * len(prompts)
    few = rank_beam_approximate(model, trie, prompts, k=1, width=1, score="sum", exclude=everything, **BATCH)
    assert ((few.items[:, 0] == 0) | ((few.items[:, 0] == -1) & (few.scores[:, 0] == -np.inf))).all()
    assert (few.items == -1).any()


def test_ranks_are_places_of_targets() -> None:
    titles, prompts = world(8)
    trie, model = build(titles), language_model(network("llama", torch.float64))
    found = rank_best_first(model, trie, prompts, k=5, score="sum", **BATCH)
    scores = catalogue_scores(model, trie, prompts, score="sum", **BATCH)
    target = np.array([best(scores[[row]], 8)[0, row] for row in range(len(prompts))])
    assert found.ranks(target).tolist() == [1, 2, 3, 4, 5, 6]
    assert found.ranks(best(scores, 80)[:, -1]).tolist() == [6] * len(prompts)


def test_agreement_counts_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    titles, prompts = world(9, titles=150, prompts=7)
    trie, model = build(titles), language_model(network("qwen3", torch.float32))
    monkeypatch.setattr("agreement.ROUND", 3)
    found = compare(model, trie, prompts, k=5, score="mean", **BATCH)
    assert found.equal.all()
    assert found.seconds.shape == (3, 2)
    assert len(found.share) == 7
    assert ((found.share > 0) & (found.share <= 1)).all()
    assert not compare(model, loosened(trie), prompts, k=5, score="mean", **BATCH).equal.all()


# --- bad input --------------------------------------------------------------------------------------------------------


class Unread(LanguageModel):
    """A model that must not be run: what is refused is refused before any work."""

    def __init__(self) -> None:
        super().__init__(network("llama", torch.float32), None)  # type: ignore[arg-type]
        self.network.base_model.register_forward_pre_hook(lambda *given: pytest.fail("the model was run"))


TITLES = [np.array([1, 2, END]), np.array([1, 3, 4, END]), np.array([5, END])]
SHORT = np.array([1, 2, 3])


@pytest.mark.parametrize(
    ("prompts", "titles", "settings", "message"),
    [
        (
            [SHORT, np.ones(CONTEXT - 3, int)],
            TITLES,
            {},
            f"prompt 1 has 61 tokens; with up to 4 .* context of {CONTEXT}",
        ),
        ([SHORT, SHORT[:0]], TITLES, {}, "prompt 1 is empty"),
        ([np.array([1, VOCABULARY])], TITLES, {}, r"prompt 0 has ids outside \[0, 61\)"),
        ([np.array([1, -1])], TITLES, {}, r"prompt 0 has ids outside \[0, 61\)"),
        (
            [SHORT],
            [*TITLES, np.array([1, VOCABULARY])],
            {},
            "titles have ids of up to 61, the model's vocabulary has 61",
        ),
        ([SHORT], TITLES, {"k": 0}, r"k = 0 .* must lie in \[1, 3\]"),
        ([SHORT], TITLES, {"k": 4}, r"k = 4 items are to be ranked of 3, .* up to 0; k must lie in \[1, 3\]"),
        ([SHORT], TITLES, {"k": 3, "exclude": [np.array([1, 1])]}, r"up to 1; k must lie in \[1, 2\]"),
        ([SHORT], TITLES, {"exclude": []}, "0 lists for 1 prompts"),
        ([SHORT], TITLES, {"exclude": [np.array([-1])]}, "exclude names item -1; the catalogue has items 0 to 2"),
        (
            [SHORT, SHORT[:1]],
            TITLES,
            {"batch_tokens": 2},
            "prompt 0 has 3 tokens, a pass takes batch_tokens = 2: raise",
        ),
        ([SHORT], TITLES, {"batch_tokens": 0}, "prompt 0 has 3 tokens, a pass takes batch_tokens = 0: raise"),
        ([SHORT], TITLES, {"batch_tokens": -4}, "a pass takes batch_tokens = -4: raise"),
        ([SHORT], TITLES, {"score": "median"}, "score = 'median': expected 'sum' or 'mean'"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    prompts: list[np.ndarray], titles: list[np.ndarray], settings: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {"k": 1, "score": "sum", **BATCH, **settings}
    model, trie = Unread(), build(titles)
    for rank in (rank_all, rank_best_first):
        with pytest.raises(UserError, match=message):
            rank(model, trie, prompts, **given)
    if 1 <= given["k"] <= 3:
        with pytest.raises(UserError, match=message):
            rank_beam_approximate(model, trie, prompts, width=3, **given)


@pytest.mark.parametrize("width", [1, 4])
def test_a_beam_wider_than_the_catalogue_or_narrower_than_its_list_is_refused(width: int) -> None:
    with pytest.raises(
        UserError, match=rf"a beam of {width} prefixes .* must lie in \[2, 3\]; wider than the catalogue use the exact"
    ):
        rank_beam_approximate(Unread(), build(TITLES), [SHORT], k=2, width=width, score="sum", **BATCH)


def test_a_diverged_model_is_refused() -> None:
    model = language_model(network("llama", torch.float32))
    with torch.no_grad():
        model.network.lm_head.weight[:, 0] = torch.nan
    for rank in (rank_all, rank_best_first):
        with pytest.raises(UserError, match="is nan"):
            rank(model, build(TITLES), [SHORT], k=1, score="sum", **BATCH)
