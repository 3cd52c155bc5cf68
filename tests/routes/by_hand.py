"""What the tests of routes share: runs of the micro profile in this process, and the formulas once more in plain
numpy, from stored files alone."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import MICRO
from scipy.optimize import minimize_scalar
from scipy.stats import norm, t

from rosepo_bench import cli
from rosepo_bench.base.config import RunConfig
from rosepo_bench.base.configure import parse_setting, read_profile, set_key, validate
from rosepo_bench.base.plugins import registry
from rosepo_bench.engine.training.steps import TrainingPairs
from rosepo_bench.losses.compiled import RosePO
from rosepo_bench.pipeline import alignment
from rosepo_bench.preference.samplers.base import Sampler
from rosepo_bench.preference.smoothings.predicted import Predicted
from rosepo_bench.runs.cells import Cell
from rosepo_bench.runs.composing import composed
from rosepo_bench.runs.methods import Preference
from rosepo_bench.runs.plan import Places, cells

# An oracle that has learned something: its temperatures stand within their bounds.
LEARNED = ("oracles.sasrec.epochs=20", "oracles.sasrec.lr=1e-2")


def run(out: Path, *arguments: str, status: int = 0) -> None:
    """The verb ``run`` on the micro profile, in this process."""
    line = ["run", "--profile", str(MICRO), "--out", str(out), "--cache-dir", str(out / "cache"), "--offline"]
    assert cli.main([*line, *arguments]) == status


def sets(*settings: str) -> list[str]:
    """Settings as options of the command line."""
    return [part for setting in settings for part in ("--set", setting)]


def cell(out: Path, method: str | Preference, *settings: str) -> Cell:
    """One cell of the micro profile; ``method`` is a name, or a declaration that no package installs."""
    name = method if isinstance(method, str) else "rosepo"
    table = {**read_profile(str(MICRO)), "methods": [name]}
    for setting in settings:
        set_key(table, *parse_setting(setting))
    (found,) = cells(validate(table, RunConfig), Places(out, None, out / "cache", offline=True))
    return found if isinstance(method, str) else Cell(found.shared, composed(method, found.task.config))


def judged_by(sampler: str) -> Preference:
    """RosePO with one sampler's pairs."""
    return Preference(
        name=f"oracle-{sampler}", loss=RosePO(), sampler=registry(Sampler)[sampler](), smoothing=Predicted()
    )


@contextmanager
def watched() -> Iterator[list[TrainingPairs]]:
    """The pairs that ``train_preference`` is given, one entry a training."""
    given: list[TrainingPairs] = []
    train = alignment.train_preference

    def spy(model: Any, prompter: Any, sequences: Any, pairs: TrainingPairs, *rest: Any, **more: Any) -> Any:
        given.append(pairs)
        return train(model, prompter, sequences, pairs, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment, "train_preference", spy)
        yield given


def stage_folder(out: Path, name: str) -> Path:
    """The one folder of a stage."""
    (found,) = [path for path in (out / "stages").iterdir() if path.name.rpartition("-")[0] == name]
    return found


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))


@functools.lru_cache(maxsize=8)
def stored(weights: Path) -> dict[str, np.ndarray]:
    """A file's arrays in double precision."""
    with np.load(weights) as file:
        return {name: file[name].astype(np.float64) for name in file.files}


def sasrec_scores(weights: Path, history: np.ndarray, heads: int = 2) -> np.ndarray:
    """Scores of all items after one history, float64 ``[items]``, by the paper's formulas over the stored weights: no
    batch, no padding, no torch."""
    w = stored(weights)
    length, width = w["position.weight"].shape
    ids = np.asarray(history)[-length:] + 1
    x = w["item.weight"][ids] * np.sqrt(width) + w["position.weight"][: len(ids)]

    def normed(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    for block in range(sum(name.endswith("qkv.weight") for name in w)):
        at = f"blocks.{block}"
        query, key, value = np.split(linear(normed(x, f"{at}.attention_norm"), f"{at}.qkv"), 3, axis=1)
        mixed = np.empty_like(x)
        for head in np.split(np.arange(width), heads):
            logits = query[:, head] @ key[:, head].T / np.sqrt(len(head))
            logits[np.triu_indices(len(ids), 1)] = -np.inf
            share = np.exp(logits - logits.max(1, keepdims=True))
            mixed[:, head] = share / share.sum(1, keepdims=True) @ value[:, head]
        x = x + linear(mixed, f"{at}.out")
        x = x + linear(np.maximum(linear(normed(x, f"{at}.forward_norm"), f"{at}.up"), 0), f"{at}.down")
    return w["item.weight"][1:] @ normed(x[-1], "norm") + w["bias"]


def likeliest(delta: np.ndarray, law: np.ndarray) -> float:
    """τ in [1/4, 8] under which the pairs' chosen items are likeliest, by search of the likelihood itself."""

    def loss(log_tau: float) -> float:
        return float(np.logaddexp(0, delta / np.exp(log_tau) + law).sum())

    grid = np.linspace(np.log(0.25), np.log(8), 400)
    best = min(grid, key=loss)
    around = (max(grid[0], best - 0.01), min(grid[-1], best + 0.01))
    found = minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-12}).x
    return float(np.exp(min([found, *around], key=loss)))


def wilson(right: int, n: int) -> tuple[float, float]:
    """Ends of Wilson's score interval: the two shares p with |right/n − p| = z sqrt(p(1 − p)/n)."""
    z = norm.ppf(0.975)
    share = right / n
    ends = np.roots([1 + z * z / n, -(2 * share + z * z / n), share**2])
    return float(min(ends.real)), float(max(ends.real))


def student(values: np.ndarray) -> tuple[float, float]:
    """Ends of Student's interval of a mean."""
    half = t.ppf(0.975, len(values) - 1) * np.sqrt(values.var(ddof=1) / len(values))
    return float(values.mean() - half), float(values.mean() + half)


def between(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Paired difference ``first − second`` of one value a user: Bonett and Price's interval (2012, formula 10) where
    no value is between -1, 0 and 1, else Student's."""
    difference = np.asarray(first, float) - np.asarray(second, float)
    n, value = len(difference), float(difference.mean())
    if not set(np.unique(difference)) <= {-1.0, 0.0, 1.0}:
        low, high = student(difference)
        return {"value": value, "low": low, "high": high, "n": n}
    p12, p21 = (((difference == sign).sum() + 1) / (n + 2) for sign in (1, -1))
    half = norm.ppf(0.975) * np.sqrt((p12 + p21 - (p12 - p21) ** 2) / (n + 2))
    return {"value": value, "low": max(p12 - p21 - half, -1.0), "high": min(p12 - p21 + half, 1.0), "n": n}


def tables(text: str, dataset: str) -> dict[str, dict[str, dict[str, str]]]:
    """The Markdown tables of one data set: heading, first cell of the row, column."""
    section = f"\n{text}".split(f"\n## {dataset}", 1)[1].split("\n## ")[0]
    found: dict[str, dict[str, dict[str, str]]] = {}
    for block in section.split("\n### ")[1:]:
        heading, *parts = block.split("\n\n")
        for part in parts:  # a wide table goes on in further ones below, the first column repeated
            if not part.startswith("|"):
                break
            split = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()]
            rows = [dict(zip(split[0], row, strict=True)) for row in split[2:]]
            whole = found.setdefault(heading, {})
            for row in rows:
                whole[row[split[0][0]]] = {**whole.get(row[split[0][0]], {}), **row}
            assert len(whole) == len(rows), "a row stands twice"
    return found
