"""Where a prompt's history begins. A prompt depends on its user and step alone, never on which others are drawn."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from rosepo_bench.data.types import Split


def starts(
    split: Split, user: Int64[np.ndarray, " n"], step: Int64[np.ndarray, " n"], *, history: int, anchor: int
) -> Int64[np.ndarray, " n"]:
    """The position in the user's sequence at which each prompt begins, so that it shows at most ``history`` items.

    Training prompts: the start moves ``anchor`` steps at a time, counted back from the user's last training step, whose
    prompt has ``history`` items; the others have ``history - anchor + 1`` to ``history``, or all there are. Prompts
    with the same start extend each other and share one path in their tree; with an anchor of 1 the window slides at
    every step. Validation and test prompts show the last ``history`` items.
    """
    assert 1 <= anchor <= history, "some prompts would have no history"
    last = split.train_end[user] - 1
    back = np.where(step <= last, (last - step) // anchor * anchor, last - step)
    return np.maximum(0, last - back - history)
