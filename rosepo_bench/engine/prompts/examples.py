"""From examples to trees: which of a user's token sequences share a prefix."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32, Int64

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import generator
from rosepo_bench.data.types import Prompts
from rosepo_bench.engine.forest import Limits, Tree, build_all
from rosepo_bench.engine.prompts.prompter import Prompter

Histories = Sequence[Int[np.ndarray, " _"]] | Mapping[int, Int[np.ndarray, " _"]]
"""Items by user, oldest first."""


@dataclass(frozen=True)
class PlacedTree:
    """One tree of a user; ``places`` are its sequences' flat indices into the responses ``[n, R]``, ``width`` is how
    many responses each of its examples has."""

    tree: Tree
    places: Int64[np.ndarray, " sequences"]
    width: int

    @property
    def examples(self) -> int:
        """How many examples it holds, where all responses of an example stay together."""
        return len(self.places) // self.width

    def rows(self, columns: int) -> Int64[np.ndarray, " examples"]:
        """Which examples it holds; ``columns`` is R."""
        return self.places[:: self.width] // columns


def by_user(user: Int[np.ndarray, " n"]) -> list[Int64[np.ndarray, " _"]]:
    """The rows of each user: users in ascending order, rows in their original order."""
    order = np.argsort(user, kind="stable")
    cuts = np.flatnonzero(np.diff(user[order])) + 1
    return np.split(order, cuts) if len(order) else []


def grouped(
    prompter: Prompter,
    sequences: Histories,
    examples: Prompts,
    responses: Int[np.ndarray, "n R"],
    *,
    limits: Limits,
    compared: bool = False,
    alone: bool = False,
) -> list[list[PlacedTree]]:
    """The trees of each user of ``examples``, users as in ``by_user``: the titles of ``responses`` (item indices; -1 at
    the end of a row: fewer of them) after each example's prompt. One tree per user, or several where ``limits`` or
    rows of different length require it.

    ``sequences[user]`` are at least the items before the user's steps. ``alone``: each example gets a tree of its own,
    as if it were a user. ``compared``: the loss compares an example's responses, so they stay in one tree. UserError,
    with user, step and item, for what no tree can hold and, with ``compared``, for two responses with the same tokens.
    """
    _check_spans(prompter, examples)
    _check_responses(prompter, examples, responses)
    users = list(np.arange(len(examples.user))[:, None]) if alone else by_user(examples.user)
    widths = (responses >= 0).sum(axis=1)
    found: list[list[PlacedTree]] = [[] for _ in users]
    for width in np.unique(widths[widths > 0]).tolist():
        numbers = [number for number, rows in enumerate(users) if (widths[rows] == width).any()]
        chosen = [users[number][widths[users[number]] == width] for number in numbers]
        made = _trees(prompter, sequences, examples, responses, chosen, width, limits, compared)
        for number, trees in zip(numbers, made, strict=True):
            found[number] += trees
    return found


def _trees(
    prompter: Prompter,
    sequences: Histories,
    examples: Prompts,
    responses: Int[np.ndarray, "n R"],
    users: list[Int64[np.ndarray, " _"]],
    width: int,
    limits: Limits,
    compared: bool,
) -> list[list[PlacedTree]]:
    """The trees of each user's rows, all of which have ``width`` responses."""
    pairs = []
    for rows in users:
        spans = list(zip(examples.start[rows].tolist(), examples.step[rows].tolist(), strict=True))
        prompts = _prompts(prompter, sequences[int(examples.user[rows[0]])], spans, examples.candidates[rows])
        titles = [[prompter.response(item) for item in row] for row in responses[rows, :width].tolist()]
        pairs.append([(prompt, title) for prompt, row in zip(prompts, titles, strict=True) for title in row])

    def name(user: int, sequence: int) -> str:
        row, column = users[user][sequence // width], sequence % width
        return f"user {examples.user[row]}, step {examples.step[row]}, item {responses[row, column]}"

    made = build_all(pairs, limits, unit=width if compared else 1, distinct=compared, name=name)
    places = [(rows[:, None] * responses.shape[1] + np.arange(width)).ravel() for rows in users]
    return [_placed(trees, place, width) for trees, place in zip(made, places, strict=True)]


def _check_spans(prompter: Prompter, examples: Prompts) -> None:
    """UserError: a prompt that would show more items than the prompter was made for."""
    shown = examples.step - examples.start
    bad = np.flatnonzero((shown < 0) | (shown > prompter.history) | (examples.start < 0))
    if len(bad):
        row = bad[0]
        raise UserError(
            f"user {examples.user[row]}, step {examples.step[row]}: the prompt starts at {examples.start[row]}, it may "
            f"show 0 to {prompter.history} items"
        )


def _check_responses(prompter: Prompter, examples: Prompts, responses: Int[np.ndarray, "n R"]) -> None:
    """UserError: an item outside the catalogue, or one after a -1."""
    after = np.zeros(responses.shape, dtype=bool)
    after[:, 1:] = (responses[:, :-1] == -1) & (responses[:, 1:] != -1)
    outside = np.argwhere((responses < -1) | (responses >= len(prompter.titles)) | after)
    if len(outside):
        row, column = outside[0]
        raise UserError(
            f"user {examples.user[row]}, step {examples.step[row]}: response {column} is item "
            f"{responses[row, column]}, the catalogue has items 0 to {len(prompter.titles) - 1}, and -1 stands only at "
            "the end of a list"
        )


def _prompts(
    prompter: Prompter,
    sequence: Int[np.ndarray, " steps"],
    spans: list[tuple[int, int]],
    listed: Iterable[Int[np.ndarray, " _"] | None],
) -> list[Int32[np.ndarray, " _"]]:
    """The prompt over ``sequence[start:stop]`` for each of ``spans``. Without candidates in them, prompts with the same
    start are prefixes of the longest one, which alone is built."""
    if prompter.with_candidates:
        return [prompter.prompt(sequence[start:stop], row) for (start, stop), row in zip(spans, listed, strict=True)]
    longest: dict[int, int] = {}
    for start, stop in spans:
        longest[start] = max(stop, longest.get(start, start))
    built = {}
    for start, stop in longest.items():
        items = sequence[start:stop].tolist()
        sizes = [len(prompter.header), *(len(prompter.titles[item]) for item in items)]
        built[start] = prompter.prompt(items), list(itertools.accumulate(sizes))
    return [built[start][0][: built[start][1][stop - start]] for start, stop in spans]


def example_prompts(prompter: Prompter, sequences: Histories, examples: Prompts) -> list[Int32[np.ndarray, " _"]]:
    """The prompt of each example, the one under which its candidates are scored."""
    _check_spans(prompter, examples)
    columns = (x.tolist() for x in (examples.user, examples.start, examples.step))
    rows = zip(*columns, examples.candidates, strict=True)
    return [_prompts(prompter, sequences[user], [(start, step)], [listed])[0] for user, start, step, listed in rows]


def _placed(trees: list[Tree], places: Int64[np.ndarray, " sequences"], width: int) -> list[PlacedTree]:
    cuts = np.cumsum([tree.sequences for tree in trees])[:-1]
    return [PlacedTree(tree, part, width) for tree, part in zip(trees, np.split(places, cuts), strict=True)]


def check_budget(prompter: Prompter, listed: int, responses: int, budget: int, key: str) -> None:
    """Raises UserError, before any work, for a budget of tokens that cannot hold a prompt with its responses."""
    needed = prompter.longest(listed) + (responses - 1) * max(map(len, prompter.titles))
    if needed > budget:
        raise UserError(
            f"a prompt of {prompter.history} history items and {responses} response{'s' * (responses > 1)} can need "
            f"{needed} tokens, a pass takes {key} = {budget}; raise {key}, or lower prompt.history"
        )


@dataclass(frozen=True)
class Window:
    """Steps ``[start, stop)`` of a user's sequence that share an SFT tree; their history begins at ``start``. Those
    from ``first`` on are trained on; their number is the window's length."""

    user: int
    start: int
    stop: int
    first: int = 0

    def __len__(self) -> int:
        return max(0, self.stop - max(self.start, self.first))


def sft_windows(
    train_end: Int64[np.ndarray, " users"], size: int, *, first: int = 0, seed: int, epoch: int
) -> list[Window]:
    """Every training step from ``first`` on, once, in windows of ``size`` items at an offset drawn for each user and
    epoch, in the epoch's shuffled order. A pure function of (seed, epoch). UserError for a ``size`` below 1."""
    if size < 1:
        raise UserError(f"windows of {size} items: want 1 or more")
    draw = generator(seed, "sft", "windows", epoch)
    windows = []
    for user, end in enumerate(train_end.tolist()):
        cut = int(draw.integers(1, size + 1))
        cuts = [0, *range(min(cut, end), end, size), end]
        windows += [Window(user, a, b, first) for a, b in itertools.pairwise(cuts)]
    windows = [window for window in windows if len(window)]
    return [windows[index] for index in draw.permutation(len(windows))]


def window_trees(
    prompter: Prompter,
    sequences: Sequence[Int[np.ndarray, " _"]],
    windows: Sequence[Window],
    *,
    limits: Limits,
    candidates: Callable[[int, int], Int[np.ndarray, " _"]] | None = None,
) -> list[Tree]:
    """The trees of the windows, in order: each item of a window is the response to the items before it. A tree has no
    branches unless prompts list the step's ``candidates(user, step)``. One tree per window, or several where ``limits``
    requires it."""
    pairs = []
    for window in windows:
        sequence, steps = sequences[window.user], range(max(window.start, window.first), window.stop)
        listed = [None if candidates is None else candidates(window.user, step) for step in steps]
        prompts = _prompts(prompter, sequence, [(window.start, step) for step in steps], listed)
        items = sequence[steps.start : steps.stop].tolist()
        pairs.append([(prompt, prompter.response(item)) for prompt, item in zip(prompts, items, strict=True)])

    def name(window: int, sequence: int) -> str:
        return f"user {windows[window].user}, step {max(windows[window].start, windows[window].first) + sequence}"

    return [tree for trees in build_all(pairs, limits, name=name) for tree in trees]
