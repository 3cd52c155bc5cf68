"""Prompts: joined ids, what is refused, and trees that share what they can."""

from __future__ import annotations

import numpy as np
import pytest

from rosepo_bench.base.config import SFTConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.data.types import Examples
from rosepo_bench.engine.forest import Limits
from rosepo_bench.engine.prompts.examples import Window, by_user, grouped, sft_windows, window_trees
from rosepo_bench.engine.prompts.prompter import TEMPLATES, Prompter, check_context, check_distinct, template_for
from rosepo_bench.engine.prompts.tokens import train_tiny
from rosepo_bench.engine.training.sft import window_batches

TITLES = [
    "Iron Harbor (1990)",
    "Iron Harbor II (1993)",
    "Glass Orchard (2001)",
    "Quiet Ember (1987)",
    "Émile ☂ (2010)",
]
TEMPLATE = TEMPLATES["movies"]
ENCODER = train_tiny([*TITLES, *TEMPLATE.words()], 400)


def prompter(candidates: bool = False, history: int = 3) -> Prompter:
    return Prompter(TEMPLATE, ENCODER, TITLES, history=history, candidates=candidates)


def test_every_text_survives_the_tokenizer() -> None:
    for text in [*TITLES, "never seen: ß漢字", " double  spaces "]:
        assert ENCODER.decode(ENCODER.encode(text)) == text


def test_response_continues_the_prompt_of_the_next_step() -> None:
    made = prompter()
    joined = np.concatenate([made.prompt([0, 1]), made.response(2)])
    assert joined.tolist() == made.prompt([0, 1, 2]).tolist()
    assert made.response(2)[-1] == ENCODER.end
    assert made.prompt([])[0] == ENCODER.begin[0]


def test_candidates_follow_the_history() -> None:
    made = prompter(candidates=True)
    text = ENCODER.decode(made.prompt([0], [3, 1]).tolist())
    places = [text.index(part) for part in (TEMPLATE.header, TITLES[0], TEMPLATE.candidates, TITLES[3], TITLES[1])]
    assert places == sorted(places)
    assert text.rstrip().endswith(TEMPLATE.answer) or TEMPLATE.answer in text[places[-1] :]


def test_a_title_that_tokenises_to_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="item 1: the title '' tokenises to nothing"):
        Prompter(TEMPLATE, ENCODER, ["Iron Harbor", ""], history=3, candidates=False)


def test_a_catalogue_without_titles_is_refused() -> None:
    with pytest.raises(UserError, match="a catalogue without titles"):
        Prompter(TEMPLATE, ENCODER, [], history=3, candidates=False)


def test_titles_that_the_tokenizer_cannot_tell_apart_are_refused() -> None:
    check_distinct(prompter(), TITLES)
    titles = [*TITLES, TITLES[2]]
    made = Prompter(TEMPLATE, ENCODER, titles, history=3, candidates=False)
    with pytest.raises(UserError, match=r"items 2 and 5: .* the same tokens of 'Glass Orchard \(2001\)' and 'Glass"):
        check_distinct(made, titles)


def test_a_context_too_short_is_refused_with_what_to_set() -> None:
    made = prompter()
    needed = made.longest(20)
    check_context(made, 20, needed)
    with pytest.raises(UserError, match=f"can need {needed} tokens, the model's context is {needed - 1}; lower prompt"):
        check_context(made, 20, needed - 1)


def test_longest_bounds_every_prompt() -> None:
    draw = np.random.default_rng(0)
    for listed in (False, True):
        made = prompter(candidates=listed)
        for _ in range(50):
            items, rest = draw.permutation(5)[:3], draw.permutation(5)
            assert len(made.prompt(items, rest)) + max(map(len, made.titles)) <= made.longest(5)


@pytest.mark.parametrize(
    ("source", "kind"),
    [("ml-100k", "movies"), ("steam-australian", "games"), ("goodreads", "books"), ("atomic", "items")],
)
def test_templates_by_source(source: str, kind: str) -> None:
    assert template_for(source).name == kind


def examples(user: list[int], step: list[int], start: list[int]) -> Examples:
    n = len(user)
    listed, none = np.tile(np.arange(4, dtype=np.int32), (n, 1)), np.zeros(n, np.int64)
    return Examples(np.array(user), np.array(step), np.array(start), listed, none, none)


def test_rows_of_each_user() -> None:
    assert [rows.tolist() for rows in by_user(np.array([4, 0, 4, 0, 0]))] == [[1, 3, 4], [0, 2]]


@pytest.mark.parametrize(("step", "start"), [(5, 1), (5, 6), (2, -1)])
def test_a_prompt_that_shows_too_much_is_refused(step: int, start: int) -> None:
    """More than the prompter's history, less than nothing, or what is before the first item."""
    sequences = [np.array([0, 1, 2, 3, 4, 0], dtype=np.int32)]
    said = f"user 0, step {step}: the prompt starts at {start}, it may show 0 to 3 items"
    with pytest.raises(UserError, match=said):
        grouped(prompter(), sequences, examples([0], [step], [start]), np.array([[1, 2]]), limits=Limits(256))


def test_one_tree_a_prompt() -> None:
    sequences = [np.array([0, 1, 2, 3, 4, 0, 1, 2], dtype=np.int32)]
    given = examples([0, 0, 0], [5, 6, 7], [4, 4, 4])
    responses = np.array([[0, 3], [1, 3], [2, 4]], dtype=np.int32)
    users = grouped(prompter(), sequences, given, responses, limits=Limits(256), alone=True)
    assert [[group.places.tolist() for group in user] for user in users] == [[[0, 1]], [[2, 3]], [[4, 5]]]


def test_a_user_is_one_tree_whatever_the_number_of_steps() -> None:
    sequences = [np.array([0, 1, 2, 3, 4, 0, 1, 2], dtype=np.int32)]
    given = examples([0, 0, 0], [5, 6, 7], [4, 4, 4])
    responses = np.array([[0, 3], [1, 3], [2, 4]], dtype=np.int32)
    ((group,),) = grouped(prompter(), sequences, given, responses, limits=Limits(256))
    assert group.tree.sequences == 6
    assert group.places.tolist() == list(range(6))
    separate = sum(
        len(prompter().prompt(sequences[0][4:step])) + len(prompter().response(item))
        for step, row in zip(given.step, responses, strict=True)
        for item in row
    )
    assert len(group.tree) < separate / 2


def test_windows_hold_every_training_step_once_an_epoch() -> None:
    ends = np.array([0, 1, 5, 47])
    for epoch in range(3):
        seen = [(w.user, step) for w in sft_windows(ends, 10, seed=1, epoch=epoch) for step in range(w.start, w.stop)]
        assert sorted(seen) == [(user, step) for user, end in enumerate(ends) for step in range(end)]
    assert sft_windows(ends, 10, seed=1, epoch=0) == sft_windows(ends, 10, seed=1, epoch=0)
    assert sft_windows(ends, 10, seed=1, epoch=0) != sft_windows(ends, 10, seed=1, epoch=1)
    cuts = {w.start for epoch in range(60) for w in sft_windows(np.array([25]), 10, seed=1, epoch=epoch)}
    assert cuts == set(range(25)), "over the epochs a history is cut at every step"


def test_windows_of_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="windows of 0 items: want 1 or more"):
        sft_windows(np.array([5]), 0, seed=1, epoch=0)
    alone = sft_windows(np.array([4]), 1, seed=1, epoch=0)
    assert sorted((w.start, w.stop) for w in alone) == [(step, step + 1) for step in range(4)]


def test_batches_hold_enough_responses_and_whole_epochs() -> None:
    ends = np.array([30, 12, 25])
    planned = window_batches(ends, SFTConfig(epochs=2.0, batch=16, min_steps=0), window=10, seed=0)
    assert all(sum(map(len, batch)) >= 16 for batch in planned[:-1])
    assert sum(len(window) for batch in planned for window in batch) == 2 * 67
    epochs = [window for epoch in (0, 1) for window in sft_windows(ends, 10, seed=0, epoch=epoch)]
    assert [window for batch in planned for window in batch] == epochs
    half = window_batches(ends, SFTConfig(epochs=0.5, batch=16, min_steps=0), window=10, seed=0)
    assert 33 <= sum(len(window) for batch in half for window in batch) <= 33 + 10


def test_small_data_are_passed_more_often_and_large_ones_as_often_as_told() -> None:
    ends = np.array([30, 12, 25])
    few, many = (window_batches(ends, SFTConfig(epochs=1.0, batch=16, min_steps=n), window=10, seed=0) for n in (2, 20))
    assert few == window_batches(ends, SFTConfig(epochs=1.0, batch=16, min_steps=0), window=10, seed=0)
    assert len(few) > 2
    assert len(many) == 20
    assert many == window_batches(ends, SFTConfig(batch=16, steps=20), window=10, seed=0)


def test_window_tree_trains_on_every_title() -> None:
    sequence = np.array([0, 1, 2, 3], dtype=np.int32)
    (tree,) = window_trees(prompter(), [sequence], [Window(0, 0, 4)], limits=Limits(256))
    assert tree.target.tolist() == np.concatenate([prompter().response(item) for item in sequence]).tolist()
    assert len(tree) == len(prompter().prompt(sequence)) - 1  # the last end token predicts nothing, but is a target


def test_prompts_that_list_candidates_train_on_no_first_item_and_read_it() -> None:
    ends = np.array([0, 1, 2, 30])
    windows = sft_windows(ends, 7, first=1, seed=0, epoch=0)
    seen = [(w.user, step) for w in windows for step in range(max(1, w.start), w.stop)]
    assert sorted(seen) == [(user, step) for user, end in enumerate(ends) for step in range(1, end)]
    assert sum(map(len, windows)) == len(seen)
    sequence = np.array([0, 1, 2, 3], dtype=np.int32)
    made = prompter(candidates=True)
    (tree,) = window_trees(
        made, [sequence], [Window(0, 0, 4, first=1)], limits=Limits(512), candidates=lambda user, step: sequence
    )
    assert tree.sequences == 3
    read = ENCODER.decode(tree.tokens[: len(made.header) + len(made.titles[0]) - 1].tolist())
    assert read == TEMPLATE.header + TITLES[0]
