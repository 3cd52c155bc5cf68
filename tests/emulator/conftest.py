"""The kernels, built once for the session."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import INTERLEAVED, Kernels, build

from rosepo_bench.engine.ops import library


@pytest.fixture(scope="session")
def csrc() -> Path:
    folder = library.checkout()
    if folder is None:
        pytest.skip("the package is installed without its C++ sources")
    return folder


@pytest.fixture(scope="session")
def built(csrc: Path, tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    return Kernels(build(csrc, tmp_path_factory.mktemp("emulated"), INTERLEAVED))


@pytest.fixture
def kernels(built: Kernels) -> Kernels:
    """With every barrier in place."""
    built.take_out()
    return built
