"""Checkpoints of a training: weights, the optimizer's moments, the random state, and facts, in one safetensors file
that holds the sha256 of its content."""

from __future__ import annotations

import hashlib
import json
import os
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
    state = json.dumps({**facts, "threads": torch.get_num_threads()})
    store.write_bytes(path, serialised(tensors, metadata={"state": state, "sha256": _digest(tensors, state)}))


def read(path: Path, trained: Weights) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The facts that were saved, with ``threads``, and all tensors. DamagedError: the file is not as it was written, or
    of a training of other weights."""
    try:
        with store.explained(path):
            os.close(store.plain_file(path, os.O_RDONLY))
            with safe_open(path, framework="pt") as file:
                kept, told = {name: file.get_tensor(name) for name in sorted(file.keys())}, file.metadata() or {}
    except SafetensorError as error:
        raise store.DamagedError(f"{path}: not a whole checkpoint ({error}); delete it and run again") from None
    if told.get("sha256") != _digest(kept, told.get("state", "")):
        raise store.DamagedError(f"{path}: not as it was written, its sha256 differs; delete it and run again")
    for name, parameter in trained.items():
        if f"weight.{name}" not in kept or kept[f"weight.{name}"].shape != parameter.shape:
            raise store.DamagedError(f"{path}: of a training of other weights; delete it and run again")
    return json.loads(told["state"]), kept


def _digest(tensors: Mapping[str, Tensor], state: str) -> str:
    found = hashlib.sha256(state.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


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
