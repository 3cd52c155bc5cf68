"""Kernels under the emulator: built by a C++ compiler, called on numpy arrays.

A file ``NAME_abi.cpp`` beside this one makes ``csrc/NAME.cu`` part of the library; what it declares as ``extern "C"``
is called through :class:`Kernels`.
"""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
DTYPES = ("float32", "float64", "bfloat16", "float16")  # as the C side numbers them
FLAGS = "-std=c++20 -O1 -g1 -fPIC -Wall -Wextra -Wno-unknown-pragmas"
MAX_BLOCKS = 3  # so few that every kernel goes through its work in several strides of the grid
# The thread sanitizer's calls, answered by the emulator, let another thread come first at any access to memory.
INTERLEAVED = "-fsanitize=thread"
FLAG = np.dtype([("fault", "i4"), ("column", "i4"), ("row", "i8"), ("value", "f8")])  # csrc/device_flag.h
SANITIZED = "-fsanitize=address,alignment -fno-sanitize-recover=alignment"


def build(csrc: Path, folder: Path, instrument: str) -> Path:
    """Compiles emulator, kernels and their C functions to a library in ``folder``; returns its path."""
    abis = sorted(HERE.glob("*_abi.cpp"))
    kernels = [csrc / f"{abi.stem.removesuffix('_abi')}.cu" for abi in abis] + [HERE / "planted.cu"]
    host = instrument if instrument == SANITIZED else ""
    common = f"{os.environ.get('CXX', 'c++')} {FLAGS} -DROSEPO_MAX_BLOCKS={MAX_BLOCKS} -I{HERE} -I{csrc}"
    jobs, objects = [], []
    for source in [*kernels, HERE / "emulator.cpp", *abis]:
        objects.append(folder / f"{source.name}.o")
        extra = instrument if source in kernels else host
        command = shlex.split(f"{common} {extra} -x c++ -c {source} -o {objects[-1]}")
        jobs.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    errors = [job.communicate()[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * len(jobs), "".join(errors)
    library = folder / "emulated.so"
    link = [*shlex.split(f"{os.environ.get('CXX', 'c++')} {host}"), "-shared", "-pthread", *objects, "-o", library]
    subprocess.run(list(map(str, link)), check=True)
    return library


class Kernels:
    """The library's functions; each returns an error message or nothing."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.library.emulator_seed.argtypes = [ctypes.c_uint64]
        self.library.emulator_seed.restype = self.library.emulator_take_out.restype = None

    def seed(self, seed: int) -> None:
        """Chooses the order in which threads run."""
        self.library.emulator_seed(seed)

    def take_out(self, file: str = "", line: int = 0) -> None:
        """Leaves out the barrier or exchange at a line of the sources from now on; none without arguments."""
        self.library.emulator_take_out(file.encode(), line)

    def call(self, name: str, *arguments: Any) -> str | None:
        """Runs a launch function; arrays go as pointers, ints as int64."""
        function = getattr(self.library, name)
        function.restype = ctypes.c_char_p
        message: bytes | None = function(*(_argument(value) for value in arguments))
        return None if message is None else message.decode()

    def run(self, name: str, *arguments: Any) -> None:
        """As ``call``; an error is an exception."""
        message = self.call(name, *arguments)
        if message is not None:
            raise RuntimeError(f"{name}: {message}")


def _argument(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    return ctypes.c_int64(value) if isinstance(value, int) else value


def operation(dtype: str, layout: str, **values: Any) -> Any:
    """A C struct by its fields in order: ``p`` pointer, ``i`` int64, ``a`` the number computed with, ``b`` bool."""
    kinds = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "b": ctypes.c_bool}
    kinds["a"] = ctypes.c_double if dtype == "float64" else ctypes.c_float
    fields = [tuple(field.split(":")) for field in layout.split()]
    assert {name for name, _ in fields} == set(values)
    form = type("Operation", (ctypes.Structure,), {"_fields_": [(name, kinds[kind]) for name, kind in fields]})
    filled = form(*(_argument(values[name]) if kind == "p" else values[name] for name, kind in fields))
    filled.arrays = values  # alive as long as the struct
    return ctypes.byref(filled)


def fault_names(csrc: Path) -> list[str]:
    """What a flag's fault stands for."""
    found = re.search(r"enum class Fault[^{]*{(.*?)}", (csrc / "device_flag.h").read_text(), re.DOTALL)
    assert found is not None
    return re.findall(r"^ *(\w+),", found[1], re.MULTILINE)


def computed(dtype: str) -> str:
    """What a kernel computes with."""
    return "float64" if dtype == "float64" else "float32"


def encode(values: np.ndarray, dtype: str) -> np.ndarray:
    """Rounds to nearest even; bfloat16 as its bits in uint16."""
    if dtype != "bfloat16":
        return np.ascontiguousarray(values, dtype)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def decode(stored: np.ndarray, dtype: str) -> np.ndarray:
    """To float64, exactly."""
    if dtype == "bfloat16":
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float64)
