"""Prompts: one versioned template per kind of data, history first, joined as token ids.

Each title is tokenised on its own and ends with the end token, so that its ids are the same wherever it stands. Without
candidates in the prompt, a prompt and its response are then together a prefix of the user's next prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Int, Int32

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import digest
from rosepo_bench.engine.prompts.tokens import Encoder

Items = Sequence[int] | Int[np.ndarray, " _"]


@dataclass(frozen=True)
class Template:
    """The text around titles. ``header`` stands before the history; with candidates in the prompt, ``candidates``
    stands before their list and ``answer`` before the response."""

    name: str
    version: int
    header: str
    candidates: str
    answer: str

    @property
    def digest(self) -> str:
        return digest(asdict(self))

    def words(self) -> tuple[str, ...]:
        """Its texts, to train a tokenizer on."""
        return (self.header, self.candidates, self.answer)


TEMPLATES = {
    "movies": Template("movies", 1, "Movies watched, oldest first:", "Candidates:", "Watched next:"),
    "games": Template("games", 1, "Games played, oldest first:", "Candidates:", "Played next:"),
    "books": Template("books", 1, "Books read, oldest first:", "Candidates:", "Read next:"),
    "items": Template("items", 1, "Items taken, oldest first:", "Candidates:", "Taken next:"),
}


def template_for(source: str) -> Template:
    """The template of a data source (a name of ``data/catalog.py``)."""
    kinds = {"ml": "movies", "steam": "games", "goodreads": "books"}
    return TEMPLATES[kinds.get(source.partition("-")[0], "items")]


class Prompter:
    """Prompts and responses of one catalogue, whose titles are ``names``, as token ids; a prompt shows at most
    ``history`` items. UserError for no titles, and for a title that tokenises to nothing known, or to the token that
    ends titles or begins prompts."""

    def __init__(
        self,
        template: Template,
        encoder: Encoder,
        titles: Sequence[str],
        *,
        history: int,
        candidates: bool,
    ) -> None:
        if not len(titles):
            raise UserError("a catalogue without titles: prompts and responses need at least one")
        self.history, self.with_candidates = history, candidates
        self.names = tuple(titles)
        self.titles = [
            _title(encoder, title, f"item {number}: the title {title!r}") for number, title in enumerate(titles)
        ]
        header, listing, answer = (_ended(encoder, text, f"the template's {text!r}") for text in template.words())
        self.header = np.concatenate([np.array(encoder.begin, dtype=np.int32), header])
        self.listing, self.answer = listing, answer

    def prompt(self, items: Items, candidates: Items | None = None) -> Int32[np.ndarray, " length"]:
        """The ids of a prompt over the history ``items``, oldest first, all of them: the caller chooses the window."""
        parts = [self.header, *(self.titles[item] for item in items)]
        if self.with_candidates:
            assert candidates is not None, "this template lists the candidates"
            parts += [self.listing, *(self.titles[item] for item in candidates), self.answer]
        return np.concatenate(parts)

    def response(self, item: int | np.integer) -> Int32[np.ndarray, " length"]:
        """The ids of an item's title with its end token."""
        return self.titles[item]

    def longest(self, candidates: int) -> int:
        """Most tokens that a prompt with its response can have in this catalogue."""
        lengths = np.sort([len(title) for title in self.titles])[::-1]
        total = len(self.header) + int(lengths[: self.history].sum()) + int(lengths[0])
        if self.with_candidates:
            total += len(self.listing) + int(lengths[:candidates].sum()) + len(self.answer)
        return total


def _title(encoder: Encoder, title: str, what: str) -> Int32[np.ndarray, " length"]:
    """As ``_ended``; UserError, too, for a title of which nothing is left, or nothing but unknown tokens."""
    ended = _ended(encoder, title, what)
    ids = ended[:-1].tolist()
    known = [token for token in ids if token != encoder.unknown]
    if not known or (len(known) < len(ids) and not encoder.decode(known).strip()):
        rest = "nothing but unknown tokens" if ids else "nothing"
        raise UserError(
            f"{what} tokenises to {rest} with model {encoder.model}; give the item another title, or take a model with "
            "another tokenizer"
        )
    return ended


def _ended(encoder: Encoder, text: str, what: str) -> Int32[np.ndarray, " length"]:
    """The tokens of ``text`` and the end token. UserError, which calls the text ``what``, where they hold a token that
    marks an end or a beginning: a response would be cut there."""
    ids = encoder.encode(text)
    for mark in (encoder.end, *encoder.begin):
        if mark in ids:
            does = "ends titles" if mark == encoder.end else "begins prompts"
            raise UserError(
                f"{what} holds the token {encoder.decode([mark])!r}, which {does} of model {encoder.model}; reword it, "
                "or take a model with another tokenizer"
            )
    return np.array([*ids, encoder.end], dtype=np.int32)


def check_distinct(prompter: Prompter, titles: Sequence[str]) -> None:
    """Raises UserError where two titles have the same tokens: as a pair they would have the same log-prob."""
    first: dict[bytes, int] = {}
    for number, tokens in enumerate(prompter.titles):
        other = first.setdefault(tokens.tobytes(), number)
        if other != number:
            raise UserError(
                f"items {other} and {number}: the tokenizer makes the same tokens of {titles[other]!r} and "
                f"{titles[number]!r}, so a pair of them teaches nothing; make them one item, or take a "
                "model with another tokenizer"
            )


def check_context(prompter: Prompter, candidates: int, context: int) -> None:
    """Raises UserError, before any work, for a model whose context cannot hold the prompts."""
    needed = prompter.longest(candidates)
    if needed > context:
        raise UserError(
            f"a prompt of {prompter.history} history items can need {needed} tokens, the model's context is {context}; "
            "lower prompt.history, or raise model.context (tiny)"
        )
