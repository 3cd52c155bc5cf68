"""How setup.py finds compilers, and what it refuses: one line each, nothing left out in silence."""

from __future__ import annotations

import importlib.util
import re
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

PLAN = Path(__file__).resolve().parents[1] / "csrc" / "build_plan.py"


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_plan", PLAN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setitem(sys.modules, "build_plan", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "CUDA_PREFIXES", ())
    return module


def toolkit(prefix: Path) -> Path:
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/nvcc").write_text("#!/bin/sh\n")
    (prefix / "bin/nvcc").chmod(0o755)
    (prefix / "lib64").mkdir()
    (prefix / "lib64/libcudart_static.a").touch()
    return prefix


def test_cuda_home_comes_before_the_usual_prefix_and_the_path(
    plan: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, usual, other = (toolkit(tmp_path / name) for name in ("home", "usual", "other"))
    path = {"PATH": str(other / "bin")}
    assert plan.find_cuda(path) == other
    monkeypatch.setattr(plan, "CUDA_PREFIXES", (str(usual),))
    assert plan.find_cuda(path) == usual
    assert plan.find_cuda({**path, "CUDA_HOME": str(home)}) == home
    assert plan.find_cuda({**path, "CUDA_HOME": str(home), "ROSEPO_CUDA": "0"}) is None


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"ROSEPO_CUDA": "1"}, "ROSEPO_CUDA=1, and no nvcc was found"),
        ({"ROSEPO_CUDA": "yes"}, "ROSEPO_CUDA=yes: want auto, 0 or 1"),
        ({"CUDA_HOME": "nowhere"}, "CUDA_HOME=nowhere has no bin/nvcc"),
    ],
)
def test_cuda_refusals(plan: ModuleType, env: dict[str, str], message: str) -> None:
    with pytest.raises(plan.BuildError, match=message):
        plan.find_cuda({"PATH": "", **env})


def test_no_nvcc_is_a_cpu_build(plan: ModuleType) -> None:
    assert plan.find_cuda({"PATH": ""}) is None


def test_no_compiler_is_one_line(plan: ModuleType) -> None:
    with pytest.raises(plan.BuildError, match=r"no C\+\+ compiler .* is on the PATH") as error:
        plan.find_cxx({"PATH": ""})
    assert "\n" not in str(error.value)
    with pytest.raises(plan.BuildError, match="CXX=no-such-c is not a program"):
        plan.find_cxx({"PATH": "", "CXX": "no-such-c"})


def test_plan_for_both_devices(plan: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan.platform, "machine", lambda: "x86_64")
    tools = plan.Toolchain("c++", Path("torch"), toolkit(tmp_path / "cuda"))
    built = plan.write_ninja(tmp_path, tmp_path, tools, "0123456789abcdef")
    text = (tmp_path / "build.ninja").read_text().replace("$\n", "").replace("    ", " ")
    assert built["librosepo"] == tmp_path / "librosepo.so"
    for level in ("v2", "v3", "v4"):
        assert f"-march=x86-64-{level} -DROSEPO_ISA={level}" in text
    assert "-march=native" not in text
    assert "-ffast-math" not in text
    for name in ("code=sm_80", "code=sm_90", "code=compute_90", "-cudart static", "libcudart_static.a"):
        assert name in text
    assert "-DTORCH_TARGET_VERSION=0x020b000000000000" in text
    assert f"0123456789abcdef-{plan.flags_hash(tools)}" in text


def test_plan_for_another_processor_without_cuda(
    plan: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan.platform, "machine", lambda: "aarch64")
    plan.write_ninja(tmp_path, tmp_path, plan.Toolchain("c++", Path("torch"), None), "0" * 16)
    text = (tmp_path / "build.ninja").read_text()
    assert "-DROSEPO_ISA=generic" in text
    assert "-march" not in text
    assert "cudart" not in text
    assert "ROSEPO_WITH_CUDA" not in text


def test_the_forest_is_a_module_of_its_own(plan: ModuleType, tmp_path: Path) -> None:
    tools = plan.Toolchain("c++", Path("torch"), None, "", (Path("python-headers"), Path("pybind-headers")))
    built = plan.write_ninja(tmp_path, tmp_path, tools, "0123456789abcdef")
    assert built["_forest"] == tmp_path / f"_forest{sysconfig.get_config_var('EXT_SUFFIX')}"
    lines = (tmp_path / "build.ninja").read_text().replace("$\n", "").splitlines()
    (library,) = [line for line in lines if line.startswith("build ./librosepo.so:")]
    (module,) = [line for line in lines if line.startswith("build ./_forest")]
    operator = set(PLAN.parent.glob("forest_attention*.cpp"))
    forest = {path.name for path in PLAN.parent.glob("forest*.cpp") if path not in operator}
    assert forest
    assert set(re.findall(r"/(\w+\.cpp)\.o", module)) == forest
    assert not set(re.findall(r"/(\w+\.cpp)", library)) & forest
    (command,) = [line for line in lines if "-shared" in line and "torch" not in line]
    assert "python" not in command, "the interpreter that loads the module brings Python's symbols"
    assert sum("-isystem python-headers -isystem pybind-headers" in line for line in lines) == 1


def test_missing_headers_of_python_and_pybind_are_one_line(
    plan: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python, pybind = plan.find_python()
    assert (python / "Python.h").is_file()
    assert (pybind / "pybind11/pybind11.h").is_file()
    monkeypatch.setattr(plan.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(plan.BuildError, match="pybind11 is needed to build and is not importable here"):
        plan.find_python()
    monkeypatch.setattr(plan.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(plan.BuildError, match=r"has no Python\.h: install this Python's headers"):
        plan.find_python()


def test_flags_are_part_of_the_build_id(plan: ModuleType) -> None:
    base = plan.Toolchain("c++", Path("torch"), None)
    others = [
        plan.Toolchain("c++", Path("torch"), Path("cuda")),
        plan.Toolchain("c++", Path("torch"), None, "-g"),
    ]
    assert len({plan.flags_hash(tools) for tools in [base, *others]}) == 3
