"""A new component touches one file: written into its folder, in a copy of the package, it is listed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NEW = {
    "losses": (
        "losses/new.py",
        "from rosepo_bench.losses.base import Loss\n\n\nclass New(Loss):\n    name, about = 'new-one', 'a loss'\n",
    ),
    "samplers": (
        "preference/samplers/new.py",
        "from rosepo_bench.preference.samplers.base import Sampler\n\n\n"
        "class New(Sampler):\n    name, about = 'new-one', 'a sampler'\n",
    ),
    "smoothings": (
        "preference/smoothings/new.py",
        "from rosepo_bench.preference.smoothings.base import Smoothing\n\n\n"
        "class New(Smoothing):\n    name, about = 'new-one', 'a smoothing'\n",
    ),
    "oracles": (
        "recommenders/new.py",
        "from rosepo_bench.recommenders.base import Oracle\n\n\n"
        "class New(Oracle):\n    name, about = 'new-one', 'an oracle'\n",
    ),
    "protocols": (
        "evaluation/protocols/new.py",
        "from rosepo_bench.evaluation.protocols.base import Protocol\n\n\n"
        "class New(Protocol):\n    name, about = 'new-one', 'a protocol'\n",
    ),
    "metrics": (
        "evaluation/metrics/new.py",
        "from rosepo_bench.evaluation.metrics.base import Metric\n\n"
        "NEW = Metric('new-one', 'a metric', frozenset({'rank'}), 'low', lambda told: told.rank)\n",
    ),
    "methods": (
        "baselines/new.py",
        "from rosepo_bench.api import Recommender\nfrom rosepo_bench.recommenders.popularity import Popularity\n\n"
        "METHOD = Recommender(name='new-one', about='a method', model=Popularity())\n",
    ),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    unwanted = shutil.ignore_patterns("__pycache__", "baselines")
    shutil.copytree(ROOT / "rosepo_bench", folder / "rosepo_bench", ignore=unwanted)
    shutil.copytree(ROOT / "baselines", folder / "rosepo_bench" / "baselines")
    return folder


@pytest.mark.parametrize("kind", NEW)
def test_a_new_component_is_one_file(kind: str, copy: Path) -> None:
    place, code = NEW[kind]
    file = copy / "rosepo_bench" / place
    file.write_text(f'"""Something new."""\n\n{code}')
    try:
        done = subprocess.run(
            [sys.executable, "-m", "rosepo_bench", "ls", kind],
            capture_output=True,
            text=True,
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            check=True,
        )
    finally:
        file.unlink()
    assert "new-one" in done.stdout
    assert "cannot be used" not in done.stdout
