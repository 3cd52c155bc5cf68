"""Shows that the engine needs torch, numpy and what builds it, and nothing else: a fresh environment with these alone,
a normal installation of a copy of the checkout, and the example of docs/engine.md run outside both.

    python tests/engine_alone.py

Versions are the lock file's; the package index is pip's own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("torch", "numpy", "setuptools", "ninja", "pybind11", "wheel")
LEFT_OUT = shutil.ignore_patterns(".git", "build", "*.egg-info", "__pycache__", "*.so", ".*", "tests", "results")

PROBE = """
import importlib.metadata
print("installed:", *sorted(d.metadata["Name"] for d in importlib.metadata.distributions()))
from rosepo_bench.engine import SequenceLogProb, forest
from rosepo_bench.engine.ops import library
print("operators:", library.info()["state"], "| forest:", forest.native().__name__)
assert library.checkout() is None
"""


def example() -> str:
    """The example of the operators in docs/engine.md, as it stands there."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "engine.md").read_text(), re.DOTALL)
    (block,) = [text for text in blocks if "rosepo_bench.engine.ops" in text]
    return block + "\nprint('loss', loss.tolist(), '| gradient', tuple(hidden.grad.shape))\n"


def locked() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [line for line in lines if line.partition("==")[0] in NEEDED]


def main() -> int:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source = shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
        venv.create(folder / "venv", with_pip=True)
        python = str(folder / "venv/bin/python")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        for command in (
            [*pip, *locked()],
            [*pip, "--no-build-isolation", "--no-deps", str(source)],
            [python, "-c", PROBE],
            [python, "-c", example()],
        ):
            status = subprocess.run(command, cwd=folder, env=env).returncode
            if status:
                return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
