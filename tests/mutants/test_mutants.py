"""Every entry of mutants.toml applies to the present tree, and a stale one is told with where to look."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import run_mutants
from drawer import drawn
from entries import ROOT, Mutant, Plan, PlanError, by_hand, read
from outcomes import Outcome

PLAN = read()


def plan(*entries: dict[str, Any]) -> Plan:
    return Plan(
        1.0, (), {"rosepo_bench": ["tests/test_a.py"], "rosepo_bench/a": ["tests/test_b.py"]}, 0, 3, {}, [*entries]
    )


def entry(**changes: str) -> dict[str, str]:
    return {"name": "m", "file": "rosepo_bench/a.py", "old": "x < 1", "new": "x <= 1", "breaks": "A border", **changes}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A package of two files."""
    (tmp_path / "rosepo_bench").mkdir()
    (tmp_path / "rosepo_bench" / "a.py").write_text(
        "def f(x):\n    return x < 1\n\n\ndef g(x):\n    return not x + 1\n"
    )
    (tmp_path / "rosepo_bench" / "b.py").write_text("def moved(y):\n    return y > 2\n")
    return tmp_path


@pytest.fixture(scope="module")
def found() -> list[Mutant]:
    """All mutants of the present tree."""
    return [*by_hand(PLAN), *drawn(PLAN)]


def test_every_entry_applies_to_the_present_tree(found: list[Mutant]) -> None:
    assert sum(not mutant.drawn for mutant in found) >= 40
    assert sum(mutant.drawn for mutant in found) == PLAN.number >= 15
    assert len({mutant.name for mutant in found}) == len(found)
    assert all(mutant.breaks for mutant in found)


def test_drawn_mutants_are_the_same_again_and_parse(found: list[Mutant]) -> None:
    again = drawn(PLAN)
    assert again == [mutant for mutant in found if mutant.drawn]
    for mutant in again:
        before = ast.parse((ROOT / mutant.file).read_text(encoding="utf-8"))
        assert ast.dump(ast.parse(mutant.source)) != ast.dump(before), mutant.name


def test_the_tests_that_are_named_are_there_and_derive_what_they_expect(found: list[Mutant]) -> None:
    named = {test for mutant in found for test in mutant.tests}
    for test in (*named, *PLAN.stored):
        path, _, function = test.partition("::")
        assert (ROOT / path).exists(), test
        assert not function or f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), test
    assert not named & set(PLAN.stored)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"old": "x < 2"},
            r"mutant 'm': `old` \('x < 2'\) is not in rosepo_bench/a.py; the nearest is line 2: return x < 1",
        ),
        ({"old": "return"}, r"`old` occurs 2 times in rosepo_bench/a.py \(lines 2, 6\); make it longer"),
        ({"old": "y > 2"}, "`old` is not in rosepo_bench/a.py but in rosepo_bench/b.py; change `file`"),
        ({"file": "rosepo_bench/c.py", "old": "z"}, "there is no file rosepo_bench/c.py, and no other holds `old`"),
        ({"new": "x <"}, "rosepo_bench/a.py does not parse with it"),
        ({"new": "(x < 1)"}, "`new` is the same program as `old`"),
    ],
)
def test_an_entry_that_does_not_apply_is_told(changes: dict[str, str], said: str, tree: Path) -> None:
    with pytest.raises(PlanError, match=said):
        by_hand(plan(entry(**changes)), tree)


def test_a_name_twice_is_refused(tree: Path) -> None:
    with pytest.raises(PlanError, match="names given twice: m"):
        by_hand(plan(entry(), entry(new="x > 1")), tree)


def test_an_entry_changes_one_place_and_takes_its_files_tests(tree: Path) -> None:
    (found,) = by_hand(plan(entry()), tree)
    assert found.source == (tree / found.file).read_text().replace("<", "<=")
    assert found.tests == ("tests/test_a.py",)
    assert plan().tests_of("rosepo_bench/a/b.py") == ("tests/test_b.py",)
    with pytest.raises(PlanError, match=r"csrc/a\.cpp: no tests"):
        plan().tests_of("csrc/a.cpp")


def test_drawing_finds_comparisons_constants_and_signs(tree: Path) -> None:
    (tree / "rosepo_bench" / "a").mkdir()
    every = Plan(**{**vars(plan()), "number": 100})
    changes = {mutant.breaks for mutant in drawn(every, tree)}
    assert changes == {
        *("`x < 1` is `x <= 1`", "`1` is `2`", "`not x + 1` is `x + 1`", "`x + 1` is `x - 1`"),
        *("`y > 2` is `y >= 2`", "`2` is `3`"),
    }
    assert [mutant.name for mutant in drawn(plan(), tree)] == [mutant.name for mutant in drawn(every, tree)][:3]
    without = Plan(**{**vars(every), "equivalent": {"a.f 1": "why"}})
    assert "`x < 1` is `x <= 1`" not in {mutant.breaks for mutant in drawn(without, tree)}


def test_the_report_names_survivors_first(tree: Path) -> None:
    first, second = by_hand(plan(entry(), entry(name="n", new="x > 1", breaks="A sign")), tree)
    text = run_mutants.report(
        [Outcome(first, "killed", "tests/a/test_b.py::test_it_is_so", 1.0), Outcome(second, "survived", "", 1.0)], 60.0
    )
    assert "2 mutants: 1 killed, 1 survived; 1 minutes." in text
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")] == ["mutant", "n", "m"]
    assert "a/test_b::test_it_is_so" in text


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_mutants.main(["--only", "none such"]) == 2
    assert "there is no mutant 'none such'; --list names them" in capsys.readouterr().err
