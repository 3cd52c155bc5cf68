"""A normal installation from a copy of the checkout works from outside it and holds what it should."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = (
    ".git",
    "build",
    "dist",
    ".venv",
    "*.egg-info",
    "__pycache__",
    "*.so",
    ".*_cache",
    "results",
    "tests",
)

PROBE = """
import sys, numpy, torch
from importlib.resources import files
import rosepo_bench, rosepo_bench.baselines
from rosepo_bench.engine import forest, ops
from rosepo_bench.engine.ops import library
for module in (rosepo_bench, rosepo_bench.baselines):
    assert module.__file__.startswith(sys.argv[1]), module.__file__
assert library.checkout() is None
x = torch.zeros(3)
loss = ops.preference_loss(x, x, x, x, epsilon=0.1, beta=1.0)
assert torch.allclose(loss, torch.tensor(2.0).log()), loss
tree = forest.build([(numpy.array([1, 2]), numpy.array([3, 4]))], context=8)
assert tree.tokens.tolist() == [1, 2, 3], tree
assert forest.build_id() == library.info()["build_id"]
print(library.info()["state"], *sorted(p.name for p in files("rosepo_bench.profiles").iterdir()))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if any(importlib.util.find_spec(name) is None for name in ("pip", "setuptools", "ninja", "pybind11", "wheel")):
        pytest.skip("needs pip, setuptools, wheel, ninja and pybind11 in this environment")
    folder = tmp_path_factory.mktemp("packaging")
    source = shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*LEFT_OUT))
    build = f"build/lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    left = source / build / "rosepo_bench/stale.py"
    left.parent.mkdir(parents=True)
    left.write_text("# from a build before this one\n")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += [
        "--no-build-isolation",
        "--no-deps",
        "--no-index",
        "--target",
        str(folder / "target"),
        str(source),
    ]
    result = subprocess.run(command, env={**os.environ, "ROSEPO_CUDA": "0"}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    shutil.rmtree(source)
    return folder / "target"


def test_it_works_from_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", PROBE, str(installed)]
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    profiles = sorted(path.name for path in (ROOT / "rosepo_bench/profiles").glob("*.toml"))
    assert profiles
    state, *names = result.stdout.split()
    assert state == "loaded"
    assert set(profiles) <= set(names)


def test_only_our_name_is_at_the_top(installed: Path) -> None:
    top = {path.name for path in installed.iterdir() if path.name not in ("bin", "__pycache__")}
    assert {name for name in top if not name.startswith("rosepo_bench")} == set()
    modules = {path.relative_to(ROOT / "rosepo_bench") for path in (ROOT / "rosepo_bench").rglob("*.py")}
    missing = {path for path in modules if not (installed / "rosepo_bench" / path).is_file()}
    assert missing == set(), "a package was left out"
    assert not (installed / "rosepo_bench/stale.py").exists()


def test_the_wheel_names_a_platform_and_this_python(installed: Path) -> None:
    (wheel,) = installed.glob("rosepo_bench-*.dist-info/WHEEL")
    (tag,) = [line for line in wheel.read_text().splitlines() if line.startswith("Tag: ")]
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert tag.startswith(f"Tag: {python}-{python}")
    assert not tag.endswith("-any")


def test_components_are_installed(installed: Path) -> None:
    """What is found by looking through folders, not by entry points, is in the package."""
    code = (
        "from rosepo_bench.runs.composing import KINDS; from rosepo_bench.runs.methods import methods; "
        "from rosepo_bench.base.plugins import registry; import rosepo_bench; print(rosepo_bench.__file__); "
        "print(methods().names(), methods().broken, *(registry(KINDS[kind]).names() for kind in KINDS))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=installed,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )
    place, named = found.stdout.splitlines()
    assert place.startswith(str(installed))
    for name in ("'rosepo'", "'sft-longer'", "'dr_dpo'", "'mixed'", "'predicted'", "'sasrec'", "'candidates-sum'"):
        assert name in named
