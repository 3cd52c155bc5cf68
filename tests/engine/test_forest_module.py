"""The compiled forest module: apart from the operators, and refused where it is missing, stale or broken."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine import forest
from rosepo_bench.engine.forest import trees
from rosepo_bench.engine.ops import library


def output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm here")
def test_operators_and_forest_share_nothing() -> None:
    operators, module = (output("nm", "--demangle", path) for path in (library.LIBRARY, trees.MODULE))
    assert "rosepo::forest::build" in module
    assert "rosepo::forest" not in operators
    assert "preference_loss" in operators
    assert "preference_loss" not in module


@pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf here")
def test_the_module_needs_python_and_no_torch() -> None:
    symbols = output("readelf", "--wide", "--dyn-syms", trees.MODULE)
    undefined = re.findall(r" UND (\S+)", symbols)
    assert any(name.startswith("Py") for name in undefined), "the pattern finds symbols"
    assert [name for name in undefined if re.search("aoti|torch|c10", name)] == []
    needed = re.findall(r"Shared library: \[(.*)\]", output("readelf", "--wide", "--dynamic", trees.MODULE))
    assert [name for name in needed if re.search("python|torch", name)] == []


def test_a_stale_or_missing_module_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csrc = library.checkout()
    if csrc is None:
        pytest.skip("the package is installed without its C++ sources")
    copy = shutil.copytree(csrc, tmp_path / "csrc")
    assert library.verify(trees.MODULE, copy) == forest.build_id()
    with (copy / "forest_trie.h").open("a") as file:
        file.write("// one more line\n")
    monkeypatch.setattr(library, "checkout", lambda: copy)
    forest.native.cache_clear()
    with pytest.raises(UserError, match=r"built from other sources .*: run `make build`"):
        forest.native()
    monkeypatch.setattr(trees, "MODULE", tmp_path / "_forest.so")
    with pytest.raises(UserError, match=r"_forest\.so is not there\): run `make build`"):
        forest.native()


def test_a_module_that_does_not_load_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    forest.native()
    monkeypatch.delattr(forest, "_forest")
    monkeypatch.setitem(sys.modules, "rosepo_bench.engine.forest._forest", None)
    forest.native.cache_clear()
    with pytest.raises(UserError, match=r"_forest\S* does not load: "):
        forest.native()
