"""The audit of candidate files: its redraws, its test, and the leaks that it must find."""

from __future__ import annotations

import itertools
from collections import Counter

import audit_files
import numpy as np
import pytest
from scipy import stats

from rosepo_bench.base.errors import UserError
from rosepo_bench.evaluation.audit import redraw, testing
from rosepo_bench.evaluation.audit.attacks import Name, Places
from rosepo_bench.evaluation.audit.audit import Audit, audit
from rosepo_bench.evaluation.audit.redraw import Draw, Redraws
from rosepo_bench.evaluation.audit.table import RawRow, Table


def table(*rows: tuple[str, str, str], **others: list[tuple[str, str, str]]) -> Table:
    """Rows of history, target and candidates, one letter an item; users are numbered."""

    def raw(told: list[tuple[str, str, str]]) -> list[RawRow]:
        return [RawRow(f"u{place}", tuple(one[0]), one[1], tuple(one[2])) for place, one in enumerate(told)]

    return Table.of({"test": raw(list(rows)), **{name: raw(told) for name, told in others.items()}})


def negatives(draw: Draw, items: int) -> list[frozenset[int]]:
    return [frozenset(own[own < items].tolist()) for own in draw.lists[:, 1:]]


def test_redraws_exchange_the_negatives_and_nothing_else() -> None:
    world = audit_files.honest("popularity", 3, rows=60, items=120)
    for row in world.test[:20]:  # lists of two lengths
        del row.negatives[-4:]
        row.place = min(row.place, 15)
    made = world.table()
    drawn = Redraws(made, None, np.random.default_rng(0))
    counts = Counter(drawn.observed.lists.reshape(-1).tolist())
    before = negatives(drawn.observed, len(made.items))
    for _ in range(5):
        draw = drawn.draw()
        assert draw.lists[:, 0].tolist() == drawn.observed.lists[:, 0].tolist()
        assert Counter(draw.lists.reshape(-1).tolist()) == counts
        after = negatives(draw, len(made.items))
        assert list(map(len, after)) == list(map(len, before)), "no list has an item twice, nor another length"
        for own, target, history in zip(after, draw.lists[:, 0].tolist(), made.rows.histories, strict=True):
            assert not own & {target, *history.tolist()}
        kept = sum(len(one & two) for one, two in zip(before, after, strict=True)) / sum(map(len, before))
        assert kept < 0.5
        assert (draw.places.argmax(1)[:20] != 0).all(), "padding stands behind the items"


def test_every_arrangement_has_the_same_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redraw, "SWEEPS", 30)  # four rows alone need more of them
    made = table(("c", "a", "abd"), ("", "b", "bce"), ("e", "c", "cad"), ("", "d", "dbe"))
    drawn = Redraws(made, None, np.random.default_rng(1))
    index = {item: place for place, item in enumerate(made.items)}
    pool = Counter(item for own in negatives(drawn.observed, len(made.items)) for item in own)
    banned = [{index[letter] for letter in told} for told in ("ca", "b", "ec", "d")]
    pairs = [list(map(frozenset, itertools.combinations(set(range(5)) - own, 2))) for own in banned]
    possible = [way for way in itertools.product(*pairs) if Counter(item for own in way for item in own) == pool]
    assert len(possible) > 5
    found = Counter(tuple(negatives(drawn.draw(), len(made.items))) for _ in range(800))
    assert set(found) <= set(possible)
    assert stats.chisquare([found[way] for way in possible]).pvalue > 0.001


def test_histories_are_no_bar_where_the_file_puts_negatives_into_them() -> None:
    made = table(*[("b", "a", "abcd"), ("a", "c", "cgef")] * 3)
    free, bound = (Redraws(one, None, np.random.default_rng(0)) for one in (made, table(("b", "a", "acd"))))
    at = [free.taken.reshape(6, -1)[1, made.items.index(item)] for item in "ab"]
    assert at == [False, False]
    assert bound.taken.sum() == 4, "target, two negatives and padding: b is in no list"


@pytest.mark.parametrize(("name", "right"), [(name, right) for name, (_, right) in audit_files.LEAKS.items()])
def test_a_leak_in_a_tenth_of_the_rows_is_found_by_the_attack_meant_for_it(
    name: str, right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testing, "PILOT", 50)
    seed = list(audit_files.LEAKS).index(name)
    found = outcome_of(audit(audit_files.leaking(name, seed), limit=30))
    attack = next(one for one in found.attacks if one.attack == right)
    assert attack.p == 1 / 31
    assert attack.hits > attack.expected + 10
    assert attack.studentised >= found.attacks[0].studentised / 1.5


@pytest.mark.parametrize("kind", audit_files.KINDS)
def test_an_honest_file_is_clean_and_needs_few_redraws(kind: str) -> None:
    found = audit(audit_files.honest(kind, 0, rows=200).table())
    assert not found.flagged
    assert outcome_of(found).p > 0.01
    assert outcome_of(found).redraws < 2000
    assert found.popularity is not None
    assert found.popularity.value > 0.1 or kind == "popularity", "it finds targets among uniform negatives"


def outcome_of(found: Audit) -> testing.Outcome:
    assert found.outcome is not None
    return found.outcome


class Told(Redraws):
    """An attack and redraws in which the target stands first in so many of ten rows as is told."""

    names = (Name("told", "first", "last"),)

    def __init__(self, seen: int, redrawn: list[int]) -> None:
        self.left = iter([*itertools.islice(itertools.cycle([1, 3]), testing.PILOT), *redrawn])
        self.observed, self.sizes = self._draw(seen), np.full(10, 4)

    def _draw(self, first: int) -> Draw:
        return Draw(np.full((10, 4), first, dtype=np.int32), np.zeros((10, 4), dtype=np.float32), None)

    def draw(self) -> Draw:
        return self._draw(next(self.left))

    def ranks(self, draw: Draw) -> np.ndarray:
        return np.where(np.arange(10) < draw.lists[0, 0], 0, 1 + np.arange(10) % 3)[None]


def test_p_values_are_those_of_a_sequential_test() -> None:
    told = Told(4, [4, 2] * 100)  # the mean of the pilot is 2, its deviation 1, and that of a guess by chance larger
    found = testing.compare([told], told, 1000)
    assert (found.p, found.redraws) == (20 / 39, 39), "it stops at the twentieth that is as extreme"
    (attack,) = found.attacks
    assert (attack.guess, attack.hits, attack.expected) == ("first", 4, 2)
    assert attack.studentised == pytest.approx(2 / np.sqrt(10 * 1 / 4 * 3 / 4))
    told = Told(5, [5, 2, 2, 2] * 10)
    assert testing.compare([told], told, 40).p == (1 + 10) / 41


def test_places_are_counted_from_both_ends_of_lists_of_different_length() -> None:
    lists = np.array([[0, 1, 2, 3], [1, 2, 9, 9]], dtype=np.int32)  # 9 is padding
    draw = Draw(lists, np.array([[3, 0, 1, 2], [1, 0, 2, 2]], dtype=np.float32), None)
    found = testing.cells([Places(np.arange(9))], draw, np.array([4, 2]))
    assert found.shape == (2, 2, 2)
    assert testing.tally(found, 4)[0].tolist() == [0, 1, 0, 1, 2, 0, 0, 0], "both targets stand last"
    name = Name("position", "first", "last")
    guesses = [name.guess(place, 4) for place in (0, 1, 3, 4, 5)]
    assert guesses == ["first", "place 2; 1 is first", "last", "last", "place 2; 1 is last"]


def test_negatives_of_their_row_are_held_to_a_bar() -> None:
    clean = audit(audit_files.honest("uniform", 5).table(), negatives_of_row=True)
    assert clean.outcome is None
    assert {one.bar for one in clean.bar} == {1 / 20 + 0.05}
    assert [one.rate.value for one in clean.bar] == sorted((one.rate.value for one in clean.bar), reverse=True)
    assert not clean.flagged
    leaking = audit(audit_files.leaking("negatives near the target", 7, share=0.4), negatives_of_row=True)
    assert "centre by titles" in leaking.leaks
    assert all(one.rate.low > 0.1 for one in leaking.bar if one.attack in leaking.leaks)


def test_sorted_lists_are_no_leak_by_position() -> None:
    world = audit_files.honest("uniform", 8, rows=80)
    for row in world.test:
        row.negatives.sort()
        row.place = int(np.searchsorted(row.negatives, row.target))
    found = audit(world.table(), limit=100)
    assert "position" not in {one.attack for one in outcome_of(found).attacks}
    assert found.notes == ("the lists are sorted by id: an item's place tells no more than its id",)
    assert not found.flagged


def test_plain_checks_count_what_is_wrong() -> None:
    rows = [("", "a", "abc")] * 10
    bad = [("ab", "a", "acd"), ("a", "b", "acd"), ("", "b", "bcc"), ("f", "b", "bcfd"), *[("aefgh", "d", "bcd")] * 2]
    found = audit(table(*rows, *bad, validation=[("", "a", ""), ("aefgh", "d", "")]), limit=20)
    assert {check.what: check.count for check in found.checks} == {
        "the target is missing in the list": 1,
        "an item stands in the list twice": 1,
        "the list has another length than most": 1,
        "the target is in the history": 1,
        "a negative is in the history": 2,
        "target and history (5 items or more) are those of an earlier row": 1,
        "the user is in validation too": 2,
        "user, history and target are those of a row of validation": 1,
        "target and history (5 items or more) are those of validation too": 2,
    }
    assert [check.count for check in found.flaws] == [1, 1, 1]
    assert (found.rows, found.attacked) == (16, 14)
    assert found.flagged


def test_popularity_is_that_of_histories_and_other_splits() -> None:
    rows = [("", "a", "abc")] * 9 + [("bbc", "c", "cd")]
    found = audit(table(*rows, validation=[("", "b", ""), ("", "a", "")]), limit=20)
    assert found.popularity is not None
    assert found.popularity.value == pytest.approx(1 / 10), "b leads in nine lists, c in the last"


def test_files_without_whole_lists_are_refused() -> None:
    with pytest.raises(UserError, match="test: 1 of 12 rows have a list with the target and other items"):
        audit(table(("", "a", "ab"), *[("", "a", "bc")] * 11))


def test_only_so_many_rows_are_attacked_and_it_is_said() -> None:
    found = audit(audit_files.honest("uniform", 9, rows=60).table(), most=40, limit=20)
    assert (found.rows, found.attacked) == (60, 40)
    assert found.notes == ("40 of 60 rows were attacked, a random subset",)
