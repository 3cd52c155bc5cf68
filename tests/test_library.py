"""The library file: what it needs, what it says of itself, and that a stale one is refused."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.ops import library
from rosepo_bench.engine.ops.build_id import source_hash

needs_readelf = pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf here")


@pytest.fixture
def csrc() -> Path:
    folder = library.checkout()
    if folder is None:
        pytest.skip("the package is installed without its C++ sources")
    return folder


def output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# torch's stable C interface. All else of torch, in C++ (at, c10, torch), changes from one version to the next.
OF_TORCH = r"(aoti_torch|torch)_\w+"
# What comes with a version of the C or C++ library, and the weak hooks of the compiler's start-up code.
OF_SYSTEM = r"\w+@(GLIBC|GLIBCXX|CXXABI|GCC)_[\d.]+|_ITM_(de)?registerTMCloneTable|__gmon_start__"


@needs_readelf
def test_it_needs_torchs_stable_interface_and_the_system_alone() -> None:
    """No Python, no CUDA library, nothing of torch that is not stable: one file for every torch and Python."""
    symbols = output("readelf", "--wide", "--dyn-syms", library.LIBRARY)
    undefined = re.findall(r" UND (\S+)", symbols)
    assert [name for name in undefined if not re.fullmatch(f"{OF_TORCH}|{OF_SYSTEM}", name)] == []
    # Looked up at run time, as a torch without CUDA lacks them.
    assert [name for name in undefined if re.match(r"aoti_torch_\w*cuda_(stream|guard)", name)] == []
    for wanted in ("aoti_torch_library_def", "torch_call_dispatcher", "torch_parallel_for"):
        assert wanted in undefined, "the pattern finds symbols"
    for other in ("_ZN2at4_ops2mm4callE", "_ZN3c105ErrorC1Ev", "PyList_New", "cudaMalloc", "cuInit"):
        assert not re.fullmatch(f"{OF_TORCH}|{OF_SYSTEM}", other)
    assert [name for name in re.findall(r" \d+ (\S+)$", symbols, re.MULTILINE) if "rosepo" in name] == []
    needed = re.findall(r"Shared library: \[(.*)\]", output("readelf", "--wide", "--dynamic", library.LIBRARY))
    assert "libtorch_cpu.so" in needed
    assert [name for name in needed if re.search("python|cuda", name)] == []


def test_info_says_what_is_loaded(csrc: Path) -> None:
    facts = library.info()
    assert facts["state"] == "loaded"
    assert str(facts["build_id"]).startswith(source_hash(csrc) + "-")
    assert facts["isa"] in (("v2", "v3", "v4") if platform.machine() == "x86_64" else ("generic",))
    assert facts["torch_target"] == "2.11"
    assert facts["cuda"] in ("none", "sm_80,sm_90,compute_90")
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    assert has_kernel("rosepo::preference_loss", "CPU")
    assert has_kernel("rosepo::preference_loss", "CUDA") == (facts["cuda"] != "none")


def test_changed_sources_make_the_library_stale(csrc: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(csrc, tmp_path / "csrc")
    assert library.verify(library.LIBRARY, copy) == library.info()["build_id"]
    with (copy / "preference_loss.h").open("a") as file:
        file.write("// one more line\n")
    with pytest.raises(UserError, match=r"built from other sources .*: run `make build`"):
        library.verify(library.LIBRARY, copy)


@pytest.mark.parametrize("change", ["rename", "new file", "flags"])
def test_the_source_hash_sees_every_change(csrc: Path, tmp_path: Path, change: str) -> None:
    copy = shutil.copytree(csrc, tmp_path / "csrc")
    before = source_hash(copy)
    (copy / "notes.txt").write_text("not compiled")
    assert source_hash(copy) == before
    if change == "rename":
        (copy / "isa.h").rename(copy / "isa2.h")
    elif change == "new file":
        (copy / "more.cu").touch()
    else:
        plan = copy / "build_plan.py"
        plan.write_text(plan.read_text().replace("-O3", "-O2"))
    assert source_hash(copy) != before


def test_a_missing_or_foreign_library_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not built .*: run `make build`"):
        library.verify(tmp_path / "librosepo.so", None)
    foreign = tmp_path / "foreign.so"
    foreign.write_bytes(b"\x7fELF and nothing of ours")
    with pytest.raises(UserError, match="carries no build id"):
        library.verify(foreign, None)


def test_a_library_that_cannot_load_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "librosepo.so"
    broken.write_bytes(library.LIBRARY.read_bytes()[64:])
    monkeypatch.setattr(library, "LIBRARY", broken)
    library.load.cache_clear()
    try:
        state = str(library.info()["state"])
    finally:
        monkeypatch.undo()
        library.load.cache_clear()
    assert f"does not load with torch {torch.__version__}: " in state
    assert "ELF" in state


@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm here")
def test_files_compiled_for_a_cpu_level_share_no_function(csrc: Path) -> None:
    objects = sorted((csrc.parent / "build" / "ninja").glob("*.v?.o"))
    if not objects:
        pytest.skip("no object files here: the package was not built in this folder")
    for path in objects:
        # A weak function would be kept once for all levels, and run on a CPU that lacks the one it came from.
        table = output("nm", "--demangle", "--defined-only", path)
        level = path.name.split(".")[-2]
        assert f"T rosepo::{level}::" in table
        assert re.findall(r"^\S* [WVu] .*", table, re.MULTILINE) == []
