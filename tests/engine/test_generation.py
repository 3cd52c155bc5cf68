"""Greedy text against one prompt at a time without a cache."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from equality import CASES, case_name
from small_models import CONTEXT, VOCABULARY, network
from torch import nn

from rosepo_bench.base.config import ModelConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import generator
from rosepo_bench.engine.forest import build, collate
from rosepo_bench.engine.model.language_model import LanguageModel, create
from rosepo_bench.engine.prompts.prompter import TEMPLATES, Prompter
from rosepo_bench.engine.prompts.tokens import train_tiny
from rosepo_bench.engine.ranking.generation import generate

LIMIT = 12
LABEL: dict[str, Any] = {"batch_tokens": 200, "label": "test"}


def with_end(module: nn.Module, end: int) -> LanguageModel:
    encoder: Any = SimpleNamespace(end=end, decode=lambda ids: " ".join(map(str, ids)))
    return LanguageModel(module, encoder)


def catalogue(longest: int) -> Prompter:
    """A prompter with only its titles, all that ``generate`` reads of it."""
    made = Prompter.__new__(Prompter)
    made.titles = [np.arange(longest, dtype=np.int32), np.arange(2, dtype=np.int32)]
    return made


def greedy(module: nn.Module, prompt: np.ndarray, limit: int) -> list[int]:
    """``limit`` tokens after ``prompt``, each by reading the whole sequence again."""
    ids = prompt.tolist()
    module.set_attn_implementation("textbook")
    with torch.no_grad():
        for _ in range(limit):
            ids.append(int(module(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def prompts_of(seed: int, count: int) -> list[np.ndarray]:
    draw = generator(seed, "generation")
    return [draw.integers(1, VOCABULARY, size=int(n)) for n in draw.integers(1, CONTEXT - LIMIT + 1, size=count)]


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_text_is_that_of_one_prompt_alone_whatever_the_batch(case: tuple[str, dict[str, Any]]) -> None:
    # Tied, the small models say again and again what they have read.
    module = network(case[0], torch.float64, tie_word_embeddings=False, **case[1])
    prompts = prompts_of(CASES.index(case), 10)
    written = [greedy(module, prompt, LIMIT) for prompt in prompts]
    # Some end token that comes now and then, so that prompts leave the batch at different times, and some never.
    counts = Counter(token for tokens in written for token in set(tokens))
    end = min(counts, key=lambda token: (abs(counts[token] - len(prompts) / 2), token))
    model = with_end(module, end)
    for batch_tokens in (max(map(len, prompts)), 100, 10**6):
        found = generate(model, catalogue(LIMIT), prompts, limit=LIMIT, batch_tokens=batch_tokens, label="test")
        for got, tokens in zip(found, written, strict=True):
            assert got.finished == (end in tokens)
            wanted = tokens[: tokens.index(end)] if got.finished else tokens
            assert got.tokens.tolist() == wanted
            assert got.title(model) == (" ".join(map(str, wanted)) if got.finished else None)
    assert {got.finished for got in found} == {True, False}


def test_an_end_token_at_the_limit_finishes() -> None:
    module, (prompt, *_) = network("llama", torch.float64), prompts_of(3, 1)
    tokens = greedy(module, prompt, LIMIT)
    place = max(tokens.index(token) for token in tokens)
    model = with_end(module, tokens[place])
    (found,) = generate(model, catalogue(2), [prompt], limit=place + 1, **LABEL)
    assert found.finished
    assert found.tokens.tolist() == tokens[:place]
    (found,) = generate(model, catalogue(2), [prompt], limit=place, **LABEL)
    assert not found.finished
    assert found.tokens.tolist() == tokens[:place]


def test_text_is_decoded_as_titles_are_encoded() -> None:
    titles = ["Iron Harbor (1990)", "Émile ☂ (2010)"]
    encoder = train_tiny([*titles, *TEMPLATES["movies"].words()], 400)
    prompter = Prompter(TEMPLATES["movies"], encoder, titles, history=3, candidates=False)
    wanted = prompter.response(1).tolist()

    prompt, wanted = prompter.prompt([0]), prompter.response(1)
    model = create(ModelConfig(hidden=32, layers=1, heads=2, context=64), encoder, seed=0)
    batch = collate([build([(prompt, wanted)], context=64)])
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=1e-2)
    for _ in range(40):  # learns the title by heart
        optimizer.zero_grad()
        (-model.logps(batch).sum()).backward()
        optimizer.step()
    (found,) = generate(model, prompter, [prompt], limit=len(wanted), **LABEL)
    assert found.title(model) == titles[1]
    with pytest.raises(UserError, match=f"limit = {len(wanted) - 1} tokens would cut titles, the longest has"):
        generate(model, prompter, [prompt], limit=len(wanted) - 1, **LABEL)


def test_what_cannot_be_written_is_refused_before_any_work() -> None:
    model = with_end(network("llama", torch.float32), 5)
    model.network.base_model.register_forward_pre_hook(lambda *given: pytest.fail("the model was run"))
    prompts = [np.array([1, 2]), np.ones(CONTEXT - LIMIT + 1, int)]
    with pytest.raises(UserError, match=f"prompt 1 has 53 tokens; with up to 12 .* context of {CONTEXT}"):
        generate(model, catalogue(4), prompts, limit=LIMIT, **LABEL)
    with pytest.raises(UserError, match="limit = 3 tokens would cut titles, the longest has 4"):
        generate(model, catalogue(4), prompts[:1], limit=3, **LABEL)
    with pytest.raises(UserError, match="prompt 0 has 2 tokens, a pass takes batch_tokens = 0: raise it"):
        generate(model, catalogue(4), prompts[:1], limit=LIMIT, batch_tokens=0, label="test")


def test_a_diverged_model_is_refused() -> None:
    model = with_end(network("llama", torch.float32), 5)
    with torch.no_grad():
        model.network.lm_head.weight[7] = torch.inf
    with pytest.raises(UserError, match="logits are not finite"):
        generate(model, catalogue(2), [np.array([1, 2])], limit=2, **LABEL)
