"""Examples to trees: which token sequences of a user share a trunk, and where a prompt's history begins."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rosepo_bench.data.types import Examples, IntArray
from rosepo_bench.engine.forest import Tree, build
from rosepo_bench.engine.prompts import Prompter
from rosepo_bench.seeds import generator


@dataclass(frozen=True)
class Group:
    """One tree and its place in the examples: ``rows`` are the examples whose sequences it holds, in order, each with
    the same number of sequences."""

    tree: Tree
    rows: IntArray


def by_user(user: IntArray) -> list[IntArray]:
    """The rows of each user, users in the order of their number, rows in their own order."""
    order = np.argsort(user, kind="stable")
    cuts = np.flatnonzero(np.diff(user[order])) + 1
    return np.split(order, cuts) if len(order) else []


def history_starts(user: IntArray, step: IntArray, history: int) -> IntArray:
    """Where each example's prompt begins in the user's sequence. A user's examples begin together, ``history`` items
    before the latest of them, so that one prompt extends the other and their tree has one trunk."""
    latest = np.zeros(int(user.max(initial=-1)) + 1, dtype=np.int64)
    np.maximum.at(latest, user, step)
    return np.minimum(np.maximum(0, latest[user] - history), np.maximum(0, step - 1))


def grouped(
    prompter: Prompter,
    sequences: Sequence[IntArray],
    examples: Examples,
    responses: IntArray,
    *,
    context: int,
) -> list[Group]:
    """A tree for each user of ``examples``: under every prompt the titles ``responses`` ``[n, R]`` (item indices)."""
    starts = history_starts(examples.user, examples.step, prompter.history)
    groups = []
    for rows in by_user(examples.user):
        pairs = []
        for row in rows:
            items = sequences[examples.user[row]][starts[row] : examples.step[row]]
            prompt = prompter.prompt(items, examples.candidates[row])
            pairs += [(prompt, prompter.response(item)) for item in responses[row]]
        groups.append(Group(build(pairs, context=context), rows))
    return groups


@dataclass(frozen=True)
class Window:
    """Steps ``[start, stop)`` of a user's sequence that stand in one tree of SFT, history from ``start`` on. Those from
    ``first`` on are trained on; they count as its length."""

    user: int
    start: int
    stop: int
    first: int = 0

    def __len__(self) -> int:
        return max(0, self.stop - max(self.start, self.first))


def sft_windows(train_end: IntArray, size: int, *, first: int = 0, seed: int, epoch: int) -> list[Window]:
    """Every training step from ``first`` on once, cut into windows of ``size`` items whose offset is drawn a user and
    an epoch; in the shuffled order of the epoch. A pure function of (seed, epoch)."""
    draw = generator(seed, "sft", "windows", epoch)
    windows = []
    for user, end in enumerate(train_end.tolist()):
        cut = int(draw.integers(1, size + 1))
        cuts = [0, *range(min(cut, end), end, size), end]
        windows += [Window(user, a, b, first) for a, b in itertools.pairwise(cuts)]
    windows = [window for window in windows if len(window)]
    return [windows[index] for index in draw.permutation(len(windows))]


def window_tree(
    prompter: Prompter,
    sequence: IntArray,
    window: Window,
    *,
    context: int,
    candidates: Callable[[int, int], IntArray] | None = None,
) -> Tree:
    """The tree of a window: each of its items is the response to those before it. One trunk without branches, unless
    the prompt lists the step's ``candidates(user, step)``."""
    items = sequence[window.start : window.stop]
    pairs = []
    for place, item in enumerate(items):
        if window.start + place < window.first:
            continue
        listed = None if candidates is None else candidates(window.user, window.start + place)
        pairs.append((prompter.prompt(items[:place], listed), prompter.response(item)))
    return build(pairs, context=context)
