"""Benchmarks measured once each, and their table when all have run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from rosepo_bench.bench.cases import AnyCase, routine
from rosepo_bench.bench.run import Measured, cores, measure, write


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each contestant of a timed case, and one for each case that measures memory alone. Without the flag
    one test stands for all that are skipped."""
    listed = _listed(metafunc.config) if metafunc.config.getoption("--benchmark") else []
    if "timed" in metafunc.fixturenames:
        pairs = [(case, name) for case in listed if "time" in case.measures for name in case.providers]
        ids = [f"{case.name}-{name}" for case, name in pairs]
        metafunc.parametrize(("timed", "provider"), pairs or [(None, None)], ids=ids or ["all"])
    if "weighed" in metafunc.fixturenames:
        alone = [case for case in listed if "time" not in case.measures]
        metafunc.parametrize("weighed", alone or [None], ids=[case.name for case in alone] or ["all"])


def _listed(config: pytest.Config) -> list[AnyCase]:
    return routine(config.getoption("--benchmark-device"))


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest) -> Iterator[Callable[[AnyCase], Measured]]:
    """A case's measurement, taken for the first of its tests. The table of the whole list replaces ``bench.csv``; that
    of a selection goes beside it."""
    done: dict[AnyCase, Measured] = {}

    def of(case: AnyCase) -> Measured:
        if case not in done:
            done[case] = measure(case, threads=cores())
        return done[case]

    yield of
    whole = done.keys() == set(_listed(request.config))
    out = request.config.getoption("--benchmark-out")
    rows = [row for found in done.values() for row in found.rows]
    if rows:
        write(rows, out / ("bench.csv" if whole else "selected/bench.csv"))
