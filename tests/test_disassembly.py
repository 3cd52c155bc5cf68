"""The machine code of the CUDA kernels: both architectures, nothing kept in local memory, wide accesses where meant."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rosepo_bench.engine.ops import library

pytestmark = pytest.mark.skipif(library.info()["cuda"] == "none", reason="the library is built without CUDA")

NUMBERS = {"f": 4, "d": 8, "NS_8BFloat16E": 2, "NS_4HalfE": 2}  # as names are mangled: bytes
ROW_KERNELS = [
    f"{name}I{number}Lb{cap}E" for name in ("rows_kernel", "columns_kernel") for number in NUMBERS for cap in "01"
]
WIDE_KERNELS = [
    f"{name}I{number}Li{16 // size}E"
    for name in ("row_gradients_kernel", "add_to_weight_kernel")
    for number, size in NUMBERS.items()
]


def tool(name: str) -> str:
    found = shutil.which(name) or next(
        (str(path) for entry in sys.path for path in Path(entry).glob(f"nvidia/*/bin/{name}")), None
    )
    if found is None:
        pytest.skip(f"no {name} here (it comes with the CUDA toolkit, or with nvidia-cuda-{name})")
    return found


def dump(option: str, path: str = "") -> str:
    environment = os.environ | {"PATH": os.pathsep.join(filter(None, [path, os.environ.get("PATH")]))}
    command = [tool("cuobjdump"), option, str(library.LIBRARY)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


@pytest.fixture(scope="module")
def code() -> dict[tuple[str, str], str]:
    """(architecture, mangled name) of each kernel -> its instructions."""
    text = dump("--dump-sass", path=str(Path(tool("nvdisasm")).parent))
    found = {}
    for part in text.split("Fatbin elf code:")[1:]:
        architecture = re.search(r"arch = (sm_\d+)", part)
        assert architecture is not None
        for function in part.split("Function : ")[1:]:
            name, _, body = function.partition("\n")
            found[architecture[1], name.strip()] = body
    return found


def test_both_architectures_are_inside() -> None:
    assert set(re.findall(r"\.(sm_\d+)\.cubin", dump("--list-elf"))) == {"sm_80", "sm_90"}
    assert set(re.findall(r"\.(sm_\d+)\.ptx", dump("--list-ptx"))) == {"sm_90"}


def test_no_kernel_has_a_stack_or_local_memory() -> None:
    text = dump("--dump-resource-usage")
    usage = re.findall(r"Function (\S+):\n.*?STACK:(\d+) .*?LOCAL:(\d+)", text)
    assert len(usage) == text.count("Function ") > 0
    assert [name for name, stack, local in usage if (stack, local) != ("0", "0")] == []


def test_nothing_is_spilled(code: dict[tuple[str, str], str]) -> None:
    assert {architecture for architecture, _ in code} == {"sm_80", "sm_90"}
    assert all("EXIT" in body for body in code.values()), "the instructions are there"
    assert [name for name, body in code.items() if re.search(r"\b(LDL|STL)\b", body)] == []


@pytest.mark.parametrize("kernel", ROW_KERNELS + WIDE_KERNELS)
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_rows_are_read_and_written_16_bytes_at_a_time(
    code: dict[tuple[str, str], str], architecture: str, kernel: str
) -> None:
    [body] = [body for (built, name), body in code.items() if built == architecture and kernel in name]
    loads = re.findall(r"\bLDG\.E\S*\.128\b", body)
    stores = re.findall(r"\bSTG\.E\S*\.128\b", body)
    assert len(loads) >= 1
    assert len(stores) >= 1
    if "rows_kernel" in kernel:
        assert len(loads) >= 4, "several loads are in flight in each pass"


@pytest.mark.parametrize("number", ["NS_8BFloat16E", "NS_4HalfE"])
def test_dot_products_read_16_bytes_at_a_time(code: dict[tuple[str, str], str], number: str) -> None:
    bodies = [body for (_, name), body in code.items() if f"target_logits_kernelI{number}Li8E" in name]
    assert len(bodies) == 2
    assert all(re.search(r"\bLDG\.E\S*\.128\b", body) for body in bodies)
