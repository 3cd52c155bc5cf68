"""Which files a stage's key depends on, on made-up packages: ``own`` stands for this one, ``plug`` for a plugin."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rosepo_bench.base import closure, store
from rosepo_bench.base.errors import UserError

OWN = {
    "own/__init__.py": "",
    "own/leaf.py": "VALUE = 1\n",
    "own/helper.py": "import own.leaf\n",
    "own/direct.py": "from own.leaf import VALUE\n",
    "own/indirect.py": "from own import helper\n",
    "own/late.py": "class A:\n  def f(self):\n    try:\n      pass\n    except OSError:\n      import own.leaf\n",
    "own/matched.py": "def f(x):\n    match x:\n        case 1:\n            import own.leaf\n",
    "own/deep/__init__.py": "from own import first\n",
    "own/deep/relative.py": "from ..leaf import VALUE\n",
    "own/deep/sibling.py": "from . import relative\n",
    "own/first.py": "",
    "own/typed.py": "import typing\nif TYPE_CHECKING:\n    from own import leaf\nelse:\n    import own.first\n",
    "own/looped.py": "from own.back import x\n",
    "own/back.py": "from own.looped import y\n",
    "own/quiet.py": "from own.progress import say\n",
    "own/progress.py": "import own.leaf\ndef say(): ...\n",
    "own/outside.py": "import json, plug.main, numpy as np, absent\nfrom own import *\nfrom own.absent import x\n",
    "own/native.py": "from own import fast\n",
    "own/fast.so": "\x7fELF",
}
PLUG = {
    "plug/__init__.py": "",
    "plug/main.py": "from own.helper import x\nimport stranger\n",
    "plug/sub/extra.py": "def f():\n    from own.first import x\n",
    "plug/table.json": "{}",
    "plug/__pycache__/main.cpython-311.pyc": "1",
    "plug/.git/config": "1",
    "stranger/__init__.py": "",
    "single.py": "import own.leaf\n",
}
MODULES = sorted(path[:-3].replace("/", ".").removesuffix(".__init__") for path in OWN if path.endswith(".py"))
LEAF = "direct helper indirect late leaf matched deep.relative deep.sibling"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The made-up packages, where Python finds them."""
    for name, text in (OWN | PLUG).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(closure, "PACKAGE", "own")
    monkeypatch.setattr(closure, "INFRASTRUCTURE", frozenset({"own.progress"}))
    yield tmp_path
    forget()


def forget() -> None:
    """As in a new process."""
    for cached in (closure.code_digest, closure.find, closure._imported, closure._source):
        cached.cache_clear()
    importlib.invalidate_caches()


def digest(*names: str) -> str:
    """As a new process finds it."""
    forget()
    return closure.code_digest(frozenset(names))


def digests(names: list[str]) -> dict[str, str]:
    return {name: digest(name) for name in names}


def own(names: str) -> list[str]:
    return sorted(f"own.{name}" for name in names.split())


def changed(before: dict[str, str]) -> list[str]:
    return sorted(name for name, found in digests(list(before)).items() if found != before[name])


@pytest.mark.parametrize(
    ("edited", "expected"),
    [
        ("own/leaf.py", own(LEAF)),
        ("own/helper.py", own("helper indirect")),
        ("own/indirect.py", own("indirect")),
        ("own/deep/relative.py", own("deep.relative deep.sibling")),
        ("own/deep/__init__.py", own("deep deep.relative deep.sibling")),
        ("own/first.py", own("first typed deep deep.relative deep.sibling")),
        ("own/back.py", own("back looped")),
        ("own/progress.py", []),
        ("own/fast.so", own("native")),
        ("own/__init__.py", [name for name in MODULES if name != "own.progress"]),
        ("plug/main.py", []),
    ],
)
def test_an_edit_changes_what_imports_the_module_and_nothing_else(tree: Path, edited: str, expected: list[str]) -> None:
    before = digests(MODULES)
    with (tree / edited).open("a") as file:
        file.write("\nEDITED = 1\n")
    assert changed(before) == expected


def test_comments_docstrings_and_blanks_change_nothing(tree: Path) -> None:
    names = ["own.late", "own.leaf", "plug.main"]
    (tree / "own/leaf.py").write_text('"""A."""\nVALUE = 1\n"""Of it."""\n\ndef f(x):\n    "Text."\n    return x\n')
    before = digests(names)
    (tree / "own/leaf.py").write_text(
        "# B\n\n\nVALUE = (1)  # one\ndef f( x ):\n    '''Other.'''\n    # c\n    return x\n"
    )
    (tree / "own/late.py").write_text(OWN["own/late.py"].replace("class A:\n", "class A:\n  'A class.'\n"))
    assert changed(before) == []
    (tree / "own/leaf.py").write_text("VALUE = 1\ndef f(x):\n    return 'Text.'\n")
    assert changed(before) == names


def test_what_is_there_for_types_does_not_count(tree: Path) -> None:
    before = digests(["own.typed"])
    text = OWN["own/typed.py"]
    (tree / "own/typed.py").write_text(
        text.replace("import leaf", "import helper").replace("if TYPE", "if typing.TYPE")
    )
    assert "own.leaf" not in closure.files(["own.typed"])
    (tree / "own/typed.py").write_text(text.replace("    from own import leaf", "    from own import leaf, helper"))
    assert changed(before) == []
    (tree / "own/typed.py").write_text(text.replace("own.first", "own.helper"))
    assert changed(before) == ["own.typed"]


def test_a_moved_tree_has_the_same_digest(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digests([*MODULES, "plug.main"])
    for name in ("own", "plug"):
        (tree / "moved").mkdir(exist_ok=True)
        (tree / name).rename(tree / "moved" / name)
    monkeypatch.syspath_prepend(str(tree / "moved"))
    assert changed(before) == []


def test_nothing_is_imported(tree: Path) -> None:
    (tree / "own/leaf.py").write_text("raise SystemExit")
    digests([*MODULES, "plug.main"])
    assert not {"own", "plug", "stranger"} & set(sys.modules)


def test_a_running_process_keeps_its_digest(tree: Path) -> None:
    before = digest("own.direct")
    (tree / "own/leaf.py").write_text("VALUE = 2\n")
    assert closure.code_digest(frozenset({"own.direct"})) == before
    assert digest("own.direct") != before


def test_broken_code_is_hashed_by_its_bytes(tree: Path) -> None:
    before = digests(["own.direct"])
    (tree / "own/leaf.py").write_text("VALUE = = 1\n")
    assert changed(before) == ["own.direct"]


# --- other packages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edited", sorted({*PLUG, "own/helper.py", "own/leaf.py", "own/first.py", "own/direct.py"}))
def test_a_plugin_is_hashed_whole_with_what_it_imports_of_ours(tree: Path, edited: str) -> None:
    before = digests(["plug.main"])
    with (tree / edited).open("a") as file:
        file.write("\nEDITED = 1\n")
    counts = not any(part in edited for part in ("pycache", ".git", "stranger", "single", "direct"))
    assert changed(before) == (["plug.main"] if counts else [])


def test_a_new_file_in_a_plugin_counts(tree: Path) -> None:
    before = digests(["plug.main", "own.direct"])
    (tree / "plug/sub/new.txt").write_text("")
    assert changed(before) == ["plug.main"]


def test_a_plugin_without_init_is_hashed_whole(tree: Path) -> None:
    (tree / "plug/__init__.py").unlink()
    before = digests(["plug.main"])
    (tree / "plug/table.json").write_text("[]")
    assert changed(before) == ["plug.main"]


def test_a_plugin_of_one_file(tree: Path) -> None:
    before = digests(["single"])
    (tree / "plug/main.py").write_text("")
    assert changed(before) == []
    (tree / "own/leaf.py").write_text("VALUE = 2\n")
    assert changed(before) == ["single"]
    assert sorted(closure.files(["single"])) == ["own", "own.leaf", "single"]


def test_a_program_is_hashed_by_its_file(monkeypatch: pytest.MonkeyPatch, tree: Path) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tree / "single.py"))
    before = digests(["__main__"])
    (tree / "own/leaf.py").write_text("VALUE = 2\n")
    assert changed(before) == ["__main__"]
    monkeypatch.delattr(sys.modules["__main__"], "__file__")
    assert digest("__main__") == digest("own.absent")


# --- where the search starts ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    held: Any

    def method(self) -> None: ...


def test_the_modules_of_objects() -> None:
    here, errors = __name__, UserError.__module__
    assert closure.modules(store) == {"rosepo_bench.base.store"}
    assert closure.modules(store.read_json, Part) == {"rosepo_bench.base.store", here}
    assert closure.modules(lambda: 0, functools.partial(store.read_npz, Path())) == {here, "rosepo_bench.base.store"}
    assert closure.modules(Part(1).method, UserError("")) == {here, errors}
    assert closure.modules(1, "a", None, Path("x"), len) == frozenset()
    assert closure.modules(np.arange(3)) == {"numpy"}


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"a": (1, x)}, lambda x: Part(frozenset({x}))])
def test_a_component_counts_with_those_in_its_fields(wrap: Callable[[Any], Any], monkeypatch: Any) -> None:
    @dataclass(frozen=True)
    class Inner:
        size: int

    monkeypatch.setattr(Inner, "__module__", "plug.inner")
    assert closure.modules(Part(wrap(Inner(1)))) == {__name__, "plug.inner"}
    assert closure.modules(Part(wrap(1))) == {__name__}


def test_the_closure_of_a_module_of_this_package() -> None:
    wanted = ["rosepo_bench", "rosepo_bench.base", "rosepo_bench.base.errors", "rosepo_bench.base.store"]
    assert sorted(closure.files(["rosepo_bench.base.store"])) == wanted
    for name in closure.INFRASTRUCTURE:
        assert closure.find(name), f"{name} is no module"
        assert closure.files([name]) == {}


def test_builds_of_our_own_compiled_module_are_one(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its build's id is in the inputs of the stages that run it; a plugin's compiled module counts by its bytes."""
    monkeypatch.setattr(closure, "OURS", tree / "own")
    before = digest("own.native")
    (tree / "own" / "fast.so").write_text("another build")
    forget()
    assert digest("own.native") == before
    monkeypatch.setattr(closure, "OURS", tree / "elsewhere")
    forget()
    assert digest("own.native") != before
