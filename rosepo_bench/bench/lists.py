"""What the engine is measured on: prompts, the responses under each, and a small model that has read neither.

Shape legend: n prompts, R responses under each (training: chosen first, then K = R - 1 rejected; ranking: candidates).
Lengths: P tokens of a prompt, R tokens of a response, end token included.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rosepo_bench.base.seeds import generator

BEGIN, END = 0, 1
_FIRST = 2
"""Titles are made of the tokens from here on."""

HEADER = 8
"""Tokens before a user's history."""

CATALOGUE = 2000
"""Titles, of 6 to 8 tokens with the end token."""


@dataclass(frozen=True)
class ListSize:
    """A model's shape and what it is given: ``prompts`` lists of ``responses``, each of a user of his own with
    ``shortest`` to ``longest`` tokens of prompt; or, with ``users``, steps of few users: ``shortest`` to ``longest``
    items of history, ``listed`` candidates and ``suffix`` tokens after them. ``lora`` is the rank of adapters (0: the
    whole model is trained)."""

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
    """``prompts`` int32 ``[P]`` each, ``responses`` R of them for each prompt, ``owner`` int ``[n]`` the user of each;
    ``reference`` float64 ``[n, R]``: log-probs that a reference model is said to have given."""

    prompts: list[np.ndarray]
    responses: list[list[np.ndarray]]
    owner: np.ndarray
    reference: np.ndarray

    @cached_property
    def sequences(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Prompt and response, all responses of the first prompt first."""
        return [(prompt, one) for prompt, some in zip(self.prompts, self.responses, strict=True) for one in some]

    @property
    def separate_tokens(self) -> int:
        """What separate rows put through the body, padding not counted: a last token predicts nothing."""
        return sum(len(prompt) + len(response) - 1 for prompt, response in self.sequences)

    @property
    def cached_tokens(self) -> int:
        """What is computed where a prompt is computed once and its responses on top of it."""
        responses = sum(len(response) - 1 for _, response in self.sequences)
        return responses + sum(map(len, self.prompts))


def draw(size: ListSize, seed: int) -> Lists:
    """A pure function of the size and the seed."""
    random = generator(seed, "bench", "lists", size.prompts, size.responses, size.users, size.vocabulary)
    titles = _titles(size, random)
    prompts, responses, owner = (_steps if size.users else _alone)(size, titles, random)
    lengths = np.array([[len(one) for one in some] for some in responses])
    reference = -lengths * np.log(size.vocabulary) + random.normal(0, 2, lengths.shape)
    return Lists(prompts, responses, owner, reference)


def _titles(size: ListSize, random: np.random.Generator) -> list[np.ndarray]:
    """Distinct titles. As in a real catalogue few tokens begin many of them: the n-th of 256 by the law 1/n."""
    most = min(256, size.vocabulary - _FIRST)
    law = 1 / np.arange(1, most + 1)
    found: dict[bytes, np.ndarray] = {}
    while len(found) < CATALOGUE:
        body = random.integers(_FIRST, size.vocabulary, random.integers(5, 8))
        body[0] = _FIRST + random.choice(most, p=law / law.sum())
        title = np.array([*body, END], dtype=np.int32)
        found[title.tobytes()] = title
    return list(found.values())


Drawn = tuple[list[np.ndarray], list[list[np.ndarray]], np.ndarray]


def _alone(size: ListSize, titles: list[np.ndarray], random: np.random.Generator) -> Drawn:
    """Each prompt the end of a history of its own."""
    prompts, responses = [], []
    for _ in range(size.prompts):
        length = int(random.integers(size.shortest, size.longest + 1))
        items = random.permutation(len(titles))
        history = np.concatenate([titles[item] for item in items[: length // 6 + 1]])
        prompts.append(np.concatenate([[BEGIN], history[len(history) - length + 1 :]]).astype(np.int32))
        responses.append([titles[item] for item in items[-size.responses :]])
    return prompts, responses, np.arange(size.prompts)


def _steps(size: ListSize, titles: list[np.ndarray], random: np.random.Generator) -> Drawn:
    """Steps one after the other of each user; the window over his history begins anew every so many items, and until
    then a prompt goes on from the one before."""
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
