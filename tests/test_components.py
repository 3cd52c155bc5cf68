"""Components: values are checked where they are given, settings change by dotted name, and names are found."""

from __future__ import annotations

from typing import ClassVar, Literal

import pytest

from rosepo_bench.base import plugins
from rosepo_bench.base.component import Component, described, flat, setting
from rosepo_bench.base.compose import with_sections, with_settings
from rosepo_bench.base.configure import set_key
from rosepo_bench.base.errors import UserError, nearest
from rosepo_bench.base.plugins import Kind, Registry


class Part(Component):
    kind: ClassVar[Kind] = Kind("part", "parts", "rosepo_bench.profiles")


class Inner(Part):
    name = "inner"
    about = "the first"

    beta: float = setting(1.0, gt=0, lt=2, about="how much")
    mode: Literal["up", "down"] = "up"
    pair: tuple[float, float] = setting((0.5, 0.25), ge=0, le=1)


class Other(Part):
    name = "other"

    size: int = setting(ge=1)
    loud: bool = False


class Outer(Component):
    name = "outer"
    kind: ClassVar[Kind] = Kind("outer", "outers", "rosepo_bench.profiles")

    inner: Part = setting(Inner())
    k: int = setting(1, ge=1)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        Part: Registry(Part.kind, {"inner": Inner, "other": Other}),
        Outer: Registry(Outer.kind, {"outer": Outer}, broken={"gone": "(a:B, c 1.0) cannot be imported"}),
    }
    monkeypatch.setattr("rosepo_bench.base.compose.registry", found.__getitem__)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"beta": 0.0}, r"beta = 0\.0: want > 0 and < 2"),
        ({"beta": 2}, r"beta = 2\.0: want > 0 and < 2"),
        ({"beta": float("nan")}, r"beta = nan: want a finite number"),
        ({"beta": True}, r"beta = True: want a number"),
        ({"beta": "1"}, r"beta = '1': want a number"),
        ({"mode": "sideways"}, r"mode = 'sideways': want 'up' or 'down'"),
        ({"pair": [1, 2, 3]}, r"pair = \[1, 2, 3\]: want a list of 2 values, each a number"),
        ({"pair": [0.5, 1.5]}, r"pair = 1\.5: want >= 0 and <= 1"),
    ],
)
def test_values_are_checked_with_component_field_and_range(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=rf"^inner\.{said}"):
        Inner(**settings)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=rf"^method\.x\.inner\.{said}"):
        with_settings(Outer(), {"inner": settings}, "method.x")


def test_whole_numbers_and_lists_become_what_is_declared() -> None:
    made = Inner(beta=1, pair=[1, 0])  # type: ignore[arg-type]
    assert (type(made.beta), made.pair) == (float, (1.0, 0.0))


def test_settings_are_flat_by_dotted_name() -> None:
    assert dict(flat(Outer())) == {
        "inner": "inner", "inner.beta": 1.0, "inner.mode": "up", "inner.pair": [0.5, 0.25], "k": 1,
    }  # fmt: skip
    assert dict(described(Inner))["beta"] == "how much (a number > 0 and < 2; default 1.0)"


def test_a_table_changes_what_it_names() -> None:
    changed = with_settings(Outer(inner=Inner(beta=0.5)), {"inner": {"mode": "down"}, "k": 3}, "x")
    assert changed == Outer(inner=Inner(beta=0.5, mode="down"), k=3)


def test_a_name_puts_another_component_in_place() -> None:
    assert with_settings(Outer(), {"inner": {"name": "other", "size": 4}}, "x").inner == Other(size=4)
    with pytest.raises(UserError, match=r"x\.inner: other needs a value for size"):
        with_settings(Outer(), {"inner": "other"}, "x")
    with pytest.raises(UserError, match=r"unknown part 'inne'; did you mean 'inner'"):
        with_settings(Outer(), {"inner": "inne"}, "x")
    with pytest.raises(UserError, match=r"x\.inner\.bet: inner has no such setting; did you mean 'beta'"):
        with_settings(Outer(), {"inner": {"bet": 1}}, "x")


def test_sections_reach_every_use_and_no_other_component() -> None:
    sections = {"parts": {"inner": {"beta": 0.25}}}
    assert with_sections(Outer(k=2), sections) == Outer(inner=Inner(beta=0.25), k=2)
    assert with_sections(Outer(inner=Other(size=1)), sections) == Outer(inner=Other(size=1))


def test_sections_reach_a_component_that_is_put_in_place() -> None:
    """Weaker than what is said of that place; and a value without a default may come from there."""
    sections = {"parts": {"inner": {"beta": 0.25}, "other": {"size": 7, "loud": True}}}
    assert with_settings(Outer(), {"inner": "other"}, "x", sections).inner == Other(size=7, loud=True)
    assert with_settings(Outer(), {"inner": {"name": "other", "size": 4}}, "x", sections).inner == Other(
        size=4, loud=True
    )
    back = with_settings(Outer(inner=Other(size=1)), {"inner": {"name": "inner", "mode": "down"}}, "x", sections)
    assert back.inner == Inner(beta=0.25, mode="down")
    assert with_settings(Outer(inner=Other(size=1)), {"inner": {"loud": True}}, "x", sections).inner == Other(
        size=1, loud=True
    )


def test_dotted_keys_of_methods_may_name_and_change_a_component() -> None:
    table: dict[str, object] = {}
    set_key(table, "method.a.loss", "ipo")
    set_key(table, "method.a.loss.beta", 0.5)
    set_key(table, "method.b.loss.beta", 0.5)
    set_key(table, "method.b.loss", "ipo")
    assert table["method"] == {"a": {"loss": {"name": "ipo", "beta": 0.5}}, "b": {"loss": {"beta": 0.5, "name": "ipo"}}}
    with pytest.raises(UserError, match="'lr' is a value, not a section"):
        set_key({"sft": {"lr": "1"}}, "sft.lr.x", 1)


def test_a_taken_name_and_a_broken_package_are_remembered() -> None:
    found = Registry(Kind("part", "parts", ""))
    found.add("inner", Inner, "ours")
    found.add("inner", Inner, "ours again")
    found.add("inner", Other, "theirs")
    assert found["inner"] is Inner
    assert found.broken == {"inner (theirs)": "the name 'inner' is taken by ours; rename it"}
    found.broken["lost"] = "(x:Y, z 1.0) cannot be imported: no"
    with pytest.raises(UserError, match=r"part 'lost': \(x:Y, z 1.0\) cannot be imported: no"):
        _ = found["lost"]


@pytest.mark.parametrize("name", ["a/b", "..", "-x", "a b", "a.b", "x" * 65, "a\x1b[31m"])
def test_a_name_that_no_folder_can_have_is_refused(name: str) -> None:
    """Methods and samplers name the folders of their stages and records."""
    found = Registry(Kind("part", "parts", ""))
    found.add(name, Inner, "x:Y, z 1.0")
    assert found.found == {}
    ((shown, reason),) = found.broken.items()
    assert shown.isprintable()
    assert reason.startswith("(x:Y, z 1.0) want 1 to 64 letters, digits, '-', '_' and '@', of which the first is a")


def test_ours_are_found_by_looking_through_the_folder() -> None:
    from rosepo_bench.recommenders.base import Oracle

    assert {"sasrec", "popularity"} <= plugins.registry(Oracle).found.keys()
    assert "oracle" not in plugins.registry(Oracle).found, "the contract itself is no component"


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("selfhard", ["self_hard", "uniform"], "did you mean 'self_hard'?"),
        ("dop", ["dpo", "cpo", "sft"], "did you mean 'dpo'?"),
        ("gru4rec", ["dpo", "popularity", "sasrec"], "known: dpo, popularity, sasrec"),
        ("lr", ["clip", "warmup"], "known: clip, warmup"),
        ("rose", ["robust", "rosepo"], "did you mean 'rosepo'?"),
    ],
)
def test_what_is_far_away_is_not_suggested(name: str, known: list[str], said: str) -> None:
    assert nearest(name, known) == said
