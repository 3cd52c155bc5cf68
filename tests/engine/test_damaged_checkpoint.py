"""A checkpoint that is not as it was written is refused before anything is put back, and its training starts over."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rosepo_bench.base import store
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.work import Work
from rosepo_bench.engine.training.loop import FitReport, fit
from rosepo_bench.engine.training.schedule import Schedule
from rosepo_bench.pipeline.stages import Stage, Stages

STEPS = 6


class KilledError(Exception):
    """Stands in for a killed process."""


def trained(folder: Path, dies: bool) -> tuple[torch.nn.Module, FitReport]:
    """Six steps with a checkpoint after each; one that ``dies`` does so in the fifth."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)

    def backward(step: int) -> dict[str, float]:
        if dies and step == STEPS - 2:
            raise KilledError
        loss = (model(torch.full((1, 3), 1.0 + step)) ** 2).sum()
        loss.backward()
        return {"loss": float(loss.detach())}

    return model, fit(model, backward, Schedule(STEPS, 0.1), Work(0, "toy", folder, checkpoint_seconds=0))


def interrupted(folder: Path) -> Path:
    with pytest.raises(KilledError):
        trained(folder, dies=True)
    return folder / "checkpoint.safetensors"


def flip(path: Path) -> None:
    """In the weights, which the format itself does not check."""
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def another_weight(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        told = file.metadata()
    tensors = load_file(path)
    tensors["weight.bias"] += 1
    save_file(tensors, path, told)


def another_step(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        told = file.metadata()
    state = {**json.loads(told["state"]), "step": 1}
    save_file(load_file(path), path, {**told, "state": json.dumps(state)})


def no_metadata(path: Path) -> None:
    save_file(load_file(path), path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def huge_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 8 + b"{}")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES = [flip, another_weight, another_step, no_metadata, cut, empty, huge_header, folder, pipe]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_by_name(damage: Callable[[Path], None], tmp_path: Path) -> None:
    path = interrupted(tmp_path)
    damage(path)
    with pytest.raises(UserError, match=r"checkpoint\.safetensors: .*(delete it and run again|remove it)"):
        trained(tmp_path, dies=False)


def lose(path: Path) -> None:
    path.unlink()


def shorten(path: Path) -> None:
    store.write_npz(path, loss=np.ones(1))


def rename(path: Path) -> None:
    store.write_npz(path, loss=np.array(["x"] * STEPS))


@pytest.mark.parametrize("damage", [lose, shorten, rename, cut, empty, folder])
def test_damaged_curves_are_refused_by_name(damage: Callable[[Path], None], tmp_path: Path) -> None:
    """Without them the record would tell the curves of the last steps alone."""
    interrupted(tmp_path)
    damage(tmp_path / "curves.npz")
    with pytest.raises(UserError, match=r"curves\.npz: "):
        trained(tmp_path, dies=False)


@pytest.mark.parametrize("damage", [None, flip, cut, folder])
def test_a_stage_starts_over_and_ends_with_the_same_weights(
    damage: Callable[[Path], None] | None, tmp_path: Path, said: list[str]
) -> None:
    whole, report = trained(tmp_path / "whole", dies=False)
    runs: list[float] = []

    def compute(folder: Path, work: Path) -> None:
        model, told = trained(work, dies=not runs)
        runs.append(told.first_loss)
        store.write_npz(folder / "a.npz", **{name: value.detach().numpy() for name, value in model.named_parameters()})

    stage: Stage[Any] = Stage("a.sft", 0, (), compute, lambda folder: store.read_npz(folder / "a.npz"))
    runs.clear()
    with pytest.raises(KilledError):
        Stages(tmp_path).get(stage)
    if damage is not None:
        damage(Stages(tmp_path).work(stage) / "checkpoint.safetensors")
    runs.append(0.0)  # from now on it lives
    found = Stages(tmp_path).get(stage)
    for name, value in whole.named_parameters():
        np.testing.assert_array_equal(found[name], value.detach().numpy())
    assert runs[-1] == report.first_loss
    broken = [line for line in said if "what is stored of its interrupted run is broken; it starts over" in line]
    assert len(broken) == (damage is not None)
    assert not Stages(tmp_path).work(stage).exists()
