"""Checkpoints of a training: weights, the optimizer's moments, the random state, and facts, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor, nn

from rosepo_bench.base import store

Weights = Mapping[str, nn.Parameter]
MOMENTS = ("exp_avg", "exp_avg_sq")


def save(
    path: Path,
    trained: Weights,
    optimizer: torch.optim.Optimizer,
    facts: Mapping[str, Any],
    best: Mapping[str, Tensor],
) -> None:
    """Writes the file atomically. ``facts`` are JSON values; ``best`` the weights that validation prefers, if any."""
    tensors: dict[str, Tensor] = {"rng": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    for name, parameter in trained.items():
        tensors[f"weight.{name}"] = parameter.detach()
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}.{name}"] = value
    tensors |= {f"best.{name}": weight for name, weight in best.items()}
    told = {**facts, "threads": torch.get_num_threads()}
    store.write_bytes(path, serialised(tensors, metadata={"state": json.dumps(told)}))


class BrokenError(ValueError):
    """The file is no checkpoint of this training, or is damaged."""


def read(path: Path, trained: Weights) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The facts that were saved, with ``threads``, and all tensors, which fit the weights. Raises BrokenError."""
    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = json.loads(file.metadata()["state"])
            kept: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for name, parameter in trained.items():
            started = f"step.{name}" in kept
            for key in ("weight", *(MOMENTS if started else ()), *(("best",) if f"best.{name}" in kept else ())):
                if kept[f"{key}.{name}"].shape != parameter.shape:
                    raise ValueError(f"{key}.{name} has another shape")
        if "threads" not in facts or kept["rng"].shape != torch.get_rng_state().shape:
            raise ValueError("no random state")
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BrokenError(f"{path}: {error}") from error
    return facts, kept


def put_back(kept: Mapping[str, Tensor], trained: Weights, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Puts weights, moments and random state back; returns the best weights."""
    for name, parameter in trained.items():
        with torch.no_grad():
            parameter.copy_(kept[f"weight.{name}"])
        if f"step.{name}" in kept:  # else it has never had a gradient
            moments = {key: kept[f"{key}.{name}"].to(parameter.device) for key in MOMENTS}
            optimizer.state[parameter] = {"step": kept[f"step.{name}"], **moments}
    torch.set_rng_state(kept["rng"])
    if "rng.cuda" in kept and torch.cuda.is_available():
        torch.cuda.set_rng_state(kept["rng.cuda"])
    return {name: kept[f"best.{name}"] for name in trained if f"best.{name}" in kept}
