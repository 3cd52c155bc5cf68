"""What the engine is measured on: prompts and the responses to each.

Shape legend: n prompts, R responses under each (training: chosen first, then K = R - 1 rejected; ranking: candidates).
Lengths: P tokens of a prompt, R tokens of a response, end token included.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int32, Int64

from rosepo_bench.base.seeds import generator

Tokens = Int32[np.ndarray, " _"]

BEGIN, END = 0, 1
_FIRST = 2
"""First token id that titles are made of."""

HEADER = 8
"""Tokens before a user's history."""

CATALOGUE = 2000
"""Titles, of 6 to 8 tokens with the end token."""


@dataclass(frozen=True)
class ListSize:
    """A model's shape and its input: ``prompts`` prompts with ``responses`` responses each. Without ``users`` each is
    of another user and has ``shortest`` to ``longest`` tokens; with them they are steps of so many users, with
    ``shortest`` to ``longest`` items of history, then ``listed`` candidates and ``suffix`` tokens. ``lora`` is the rank
    of adapters (0: the whole model is trained)."""

    prompts: int
    responses: int
    shortest: int
    longest: int
    users: int = 0
    suffix: int = 0
    listed: int = 0
    layers: int = 4
    hidden: int = 256
    intermediate: int = 682
    heads: int = 4
    key_heads: int = 4
    vocabulary: int = 32_000
    lora: int = 0
    dtype: str = "float32"
    device: str = "cpu"

    @property
    def context(self) -> int:
        items = self.longest + self.listed
        return 16 + (HEADER + 8 * items + self.suffix if self.users else self.longest)


@dataclass(frozen=True)
class Lists:
    """n prompts, the R responses to each, and the user of each in ``owner``; ``reference``: made-up log-probs of a
    reference model."""

    prompts: list[Tokens]
    responses: list[list[Tokens]]
    owner: Int64[np.ndarray, " n"]
    reference: Float64[np.ndarray, "n R"]

    @cached_property
    def sequences(self) -> list[tuple[Tokens, Tokens]]:
        """Pairs of prompt and response, those of the first prompt first."""
        return [(prompt, one) for prompt, some in zip(self.prompts, self.responses, strict=True) for one in some]

    @property
    def separate_tokens(self) -> int:
        """Tokens that separate rows put through the body, without padding and last tokens, which predict nothing."""
        return sum(len(prompt) + len(response) - 1 for prompt, response in self.sequences)

    @property
    def cached_tokens(self) -> int:
        """Tokens that go through the body where each prompt is computed once and its responses over its cache."""
        responses = sum(len(response) - 1 for _, response in self.sequences)
        return responses + sum(map(len, self.prompts))


def draw(size: ListSize, seed: int) -> Lists:
    """The lists of a size; a pure function of size and seed."""
    random = generator(seed, "bench", "lists", size.prompts, size.responses, size.users, size.vocabulary)
    titles = _titles(size, random)
    prompts, responses, owner = (_steps if size.users else _alone)(size, titles, random)
    lengths = np.array([[len(one) for one in some] for some in responses])
    reference = -lengths * np.log(size.vocabulary) + random.normal(0, 2, lengths.shape)
    return Lists(prompts, responses, owner, reference)


def _titles(size: ListSize, random: np.random.Generator) -> list[Tokens]:
    """Distinct titles. As in a real catalogue, few tokens begin many of them: the n-th of 256 with weight 1/n."""
    most = min(256, size.vocabulary - _FIRST)
    law = 1 / np.arange(1, most + 1)
    found: dict[bytes, Tokens] = {}
    while len(found) < CATALOGUE:
        body = random.integers(_FIRST, size.vocabulary, random.integers(5, 8))
        body[0] = _FIRST + random.choice(most, p=law / law.sum())
        title = np.array([*body, END], dtype=np.int32)
        found[title.tobytes()] = title
    return list(found.values())


Drawn = tuple[list[Tokens], list[list[Tokens]], Int64[np.ndarray, " n"]]


def _alone(size: ListSize, titles: list[Tokens], random: np.random.Generator) -> Drawn:
    """Each prompt is the end of another user's history."""
    prompts, responses = [], []
    for _ in range(size.prompts):
        length = int(random.integers(size.shortest, size.longest + 1))
        items = random.permutation(len(titles))
        history = np.concatenate([titles[item] for item in items[: length // 6 + 1]])
        prompts.append(np.concatenate([[BEGIN], history[len(history) - length + 1 :]]).astype(np.int32))
        responses.append([titles[item] for item in items[-size.responses :]])
    return prompts, responses, np.arange(size.prompts)


def _steps(size: ListSize, titles: list[Tokens], random: np.random.Generator) -> Drawn:
    """Consecutive steps of each user. The start of the prompts' window moves every ``longest - shortest + 1`` steps;
    until then each prompt extends the one before."""
    header, suffix = (random.integers(_FIRST, size.vocabulary, count) for count in (HEADER, size.suffix))
    steps, span = size.prompts // size.users, size.longest - size.shortest + 1
    prompts, responses, owner = [], [], []
    for user in range(size.users):
        items = random.permutation(len(titles))
        sequence, others = items[: size.longest + steps], items[size.longest + steps :]
        for step in range(steps):
            start, stop = step // span * span, size.shortest + step
            wrong = random.choice(others, max(size.responses - 1, size.listed), replace=False)
            listed = [sequence[stop], *wrong][: size.listed]
            parts = [titles[item] for item in (*sequence[start:stop], *listed)]
            prompts.append(np.concatenate([header, *parts, suffix]).astype(np.int32))
            responses.append([titles[item] for item in (sequence[stop], *wrong[: size.responses - 1])])
            owner.append(user)
    return prompts, responses, np.array(owner)
