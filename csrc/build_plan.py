"""Finds the compilers and writes build.ninja for the operator library and the forest module. Used by setup.py;
imports no torch."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ninja.ninja_syntax import Writer

TORCH_TARGET = "2.11"
TORCH_TARGET_VERSION = "0x020b000000000000"
CUDA_ARCHITECTURES = ("80", "90")  # the last one as PTX too, for what comes after it

TORCH_SOURCES = (
    "bindings.cpp",
    "device_flag_op.cpp",
    "forest_attention_op.cpp",
    "preference_loss_check.cpp",
    "preference_loss_op.cpp",
    "sequence_logprob_op.cpp",
    "torch_glue.cpp",
)  # these include torch
PLAIN_SOURCES = ("device_flag.cpp", "isa.cpp", "scratch.cpp")
# Compiled once for each level of the CPU.
KERNEL_SOURCES = ("forest_attention.cpp", "preference_loss.cpp", "sequence_logprob.cpp")
CUDA_SOURCES = ("device_flag.cu", "preference_loss.cu", "sequence_logprob.cu")
# A Python module: its own file, so that the operators stay free of Python's symbols.
FOREST_SOURCES = ("forest.cpp", "forest_collate.cpp", "forest_mark.cpp", "forest_module.cpp")

CXX_FLAGS = "-std=c++20 -O3 -fPIC -fvisibility=hidden -Wall -Wextra -Werror=return-type"
CUDA_FLAGS = "-std=c++20 -O3 -Xcompiler -fPIC,-fvisibility=hidden -cudart static --threads 2"
CUDA_PREFIXES = ("/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda")


class BuildError(Exception):
    """One line for the person who installs."""


@dataclass(frozen=True)
class Toolchain:
    cxx: str
    torch: Path  # the installed package's folder
    cuda_home: Path | None  # None: CPU only
    cxx_flags: str = ""
    python: tuple[Path, ...] = ()  # include folders: Python's, pybind11's

    @property
    def cuda_architectures(self) -> str:
        if self.cuda_home is None:
            return "none"
        return ",".join(f"sm_{name}" for name in CUDA_ARCHITECTURES) + f",compute_{CUDA_ARCHITECTURES[-1]}"


def find_toolchain(env: Mapping[str, str] = os.environ) -> Toolchain:
    return Toolchain(find_cxx(env), find_torch(), find_cuda(env), env.get("CXXFLAGS", ""), find_python())


def find_cxx(env: Mapping[str, str]) -> str:
    named = env.get("CXX")
    for candidate in [named] if named else ["c++", "g++", "clang++"]:
        if shutil.which(shlex.split(candidate)[0], path=env.get("PATH")):
            return candidate
    what = f"CXX={named} is not a program" if named else "no C++ compiler (c++, g++, clang++) is on the PATH"
    raise BuildError(f"{what}: install one with C++20, e.g. g++ 11 or newer, or name it in CXX")


def find_torch() -> Path:
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise BuildError(
            f"torch >= {TORCH_TARGET} is needed to build and is not importable here: install it first, then "
            "`pip install --no-build-isolation .`"
        )
    folder = Path(spec.submodule_search_locations[0])
    if not (folder / "include/torch/csrc/stable/library.h").is_file():
        raise BuildError(f"this torch has no stable C++ interface: want torch >= {TORCH_TARGET}")
    return folder


def find_python() -> tuple[Path, ...]:
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").is_file():
        raise BuildError(
            f"{include} has no Python.h: install this Python's headers (Debian: apt-get install python3-dev)"
        )
    spec = importlib.util.find_spec("pybind11")
    if spec is None or not spec.submodule_search_locations:
        raise BuildError("pybind11 is needed to build and is not importable here: `pip install pybind11`")
    return include, Path(spec.submodule_search_locations[0]) / "include"


def find_cuda(env: Mapping[str, str]) -> Path | None:
    """The toolkit's prefix, by ROSEPO_CUDA=auto|0|1. A CPU-only build is always announced, see setup.py."""
    wanted = env.get("ROSEPO_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        raise BuildError(f"ROSEPO_CUDA={wanted}: want auto, 0 or 1")
    if wanted == "0":
        return None
    home = env.get("CUDA_HOME")
    for prefix in [Path(home)] if home else cuda_prefixes(env):
        if (prefix / "bin/nvcc").is_file():
            return prefix
    if home:
        raise BuildError(f"CUDA_HOME={home} has no bin/nvcc: correct it, unset it, or set ROSEPO_CUDA=0")
    if wanted == "1":
        raise BuildError("ROSEPO_CUDA=1, and no nvcc was found: set CUDA_HOME to the toolkit's prefix")
    return None


def cuda_prefixes(env: Mapping[str, str]) -> Iterable[Path]:
    yield from map(Path, CUDA_PREFIXES)
    found = shutil.which("nvcc", path=env.get("PATH"))
    if found:  # last: it may be a wrapper outside its toolkit
        yield Path(found).resolve().parents[1]


def cpu_levels() -> dict[str, str]:
    """Namespace of each build of the CPU kernels -> its compiler flag. Never this machine's own level."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return {level: f"-march=x86-64-{level}" for level in ("v2", "v3", "v4")}
    return {"generic": ""}


def flags_hash(tools: Toolchain) -> str:
    flags = (CXX_FLAGS, CUDA_FLAGS, tools.cxx_flags, TORCH_TARGET_VERSION, tools.cuda_architectures)
    return hashlib.sha256("\0".join((*flags, *cpu_levels())).encode()).hexdigest()[:8]


def write_ninja(root: Path, build: Path, tools: Toolchain, source_hash: str) -> dict[str, Path]:
    """Writes `build`/build.ninja, to be run from `root`; returns the paths of what it will build: librosepo and
    _forest."""
    out = os.path.relpath(build, root)
    library, module = f"{out}/librosepo.so", f"{out}/_forest{sysconfig.get_config_var('EXT_SUFFIX')}"
    with (build / "build.ninja").open("w") as file:
        ninja = Writer(file, width=110)  # type: ignore[arg-type]  # its stub asks for a str
        ninja.variable("builddir", out)
        write_rules(ninja, tools)
        objects = []
        for name, rule, source, extra in steps(tools, source_hash):
            objects.append(f"{out}/{name}.o")
            ninja.build(objects[-1:], rule, [f"csrc/{source}"], variables={"extra": extra})
        ninja.build([library], "link", objects)
        write_forest(ninja, out, module, tools, source_hash)
    return {"librosepo": root / library, "_forest": root / module}


def write_forest(ninja: Writer, out: str, module: str, tools: Toolchain, source_hash: str) -> None:
    # Python's symbols are left open: the interpreter that loads the module has them.
    ninja.rule("link_module", f"{tools.cxx} {tools.cxx_flags} -shared $in -o $out", description="link $out")
    extra = {
        "forest_mark.cpp": build_id_define(tools, source_hash),
        "forest_module.cpp": " ".join(f"-isystem {shlex.quote(str(folder))}" for folder in tools.python),
    }
    objects = []
    for source in FOREST_SOURCES:
        objects.append(f"{out}/{source}.o")
        ninja.build(objects[-1:], "cxx", [f"csrc/{source}"], variables={"extra": extra.get(source, "")})
    ninja.build([module], "link_module", objects)


def build_id_define(tools: Toolchain, source_hash: str) -> str:
    return f"""'-DROSEPO_BUILD_ID="{source_hash}-{flags_hash(tools)}"'"""


def steps(tools: Toolchain, source_hash: str) -> Iterable[tuple[str, str, str, str]]:
    """(object, rule, source, extra flags) of each compilation."""
    for source in TORCH_SOURCES:
        about = f" {identity(tools, source_hash)}" if source == "bindings.cpp" else ""
        yield source, "cxx", source, torch_flags(tools) + about
    for source in PLAIN_SOURCES:
        yield source, "cxx", source, ""
    for source in KERNEL_SOURCES:
        for level, march in cpu_levels().items():
            yield f"{source}.{level}", "cxx", source, f"{march} -DROSEPO_ISA={level}"
    for source in CUDA_SOURCES if tools.cuda_home else ():
        yield source, "nvcc", source, ""


def torch_flags(tools: Toolchain) -> str:
    cuda = "-DROSEPO_WITH_CUDA " if tools.cuda_home else ""
    return f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION} {cuda}-isystem {shlex.quote(str(tools.torch / 'include'))}"


def identity(tools: Toolchain, source_hash: str) -> str:
    """What the library says of itself: for one file alone, so that the others need no new compilation for it."""
    defines = {
        "ROSEPO_CUDA_ARCHITECTURES": tools.cuda_architectures,
        "ROSEPO_TORCH_TARGET": TORCH_TARGET,
    }
    return " ".join(
        [build_id_define(tools, source_hash), *(f"""'-D{name}="{value}"'""" for name, value in defines.items())]
    )


def write_rules(ninja: Writer, tools: Toolchain) -> None:
    compile_cxx = f"{tools.cxx} -MMD -MF $out.d {CXX_FLAGS} {tools.cxx_flags} $extra -c $in -o $out"
    ninja.rule("cxx", compile_cxx, depfile="$out.d", deps="gcc", description="c++ $out")
    libraries = f"-L{shlex.quote(str(tools.torch / 'lib'))} -ltorch_cpu -ldl"
    if tools.cuda_home:
        code = " ".join(f"-gencode arch=compute_{n},code=sm_{n}" for n in CUDA_ARCHITECTURES)
        last = CUDA_ARCHITECTURES[-1]
        code += f" -gencode arch=compute_{last},code=compute_{last}"
        nvcc = shlex.quote(str(tools.cuda_home / "bin/nvcc"))
        command = f"{nvcc} -MMD -MF $out.d -ccbin {shlex.quote(tools.cxx)} {CUDA_FLAGS} {code} -c $in -o $out"
        ninja.rule("nvcc", command, depfile="$out.d", deps="gcc", description="nvcc $out")
        libraries += f" {shlex.quote(str(static_cudart(tools.cuda_home)))} -lpthread -lrt"
    link = f"{tools.cxx} {tools.cxx_flags} -shared $in -o $out {libraries} -Wl,--exclude-libs,ALL"
    ninja.rule("link", link, description="link $out")


def static_cudart(home: Path) -> Path:
    machine = {"aarch64": "sbsa"}.get(platform.machine(), platform.machine())
    for folder in ("lib64", "lib", f"targets/{machine}-linux/lib"):
        path = home / folder / "libcudart_static.a"
        if path.is_file():
            return path
    raise BuildError(f"{home} has no libcudart_static.a: install the CUDA runtime, or set ROSEPO_CUDA=0")


def run_ninja(root: Path, build: Path) -> None:
    file = os.path.relpath(build / "build.ninja", root)
    status = subprocess.run([sys.executable, "-m", "ninja", "-f", file], cwd=root).returncode
    if status:
        raise BuildError(f"the compiler failed (ninja status {status}): its message is above")
