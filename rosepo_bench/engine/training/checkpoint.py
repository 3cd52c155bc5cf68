"""Checkpoints of a training: weights, the optimizer's moments, the random state, and facts, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as serialised
from torch import Tensor, nn

from rosepo_bench.base import progress, store

Weights = Mapping[str, nn.Parameter]


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


def restore(path: Path, trained: Weights, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Puts weights, moments and random state back; returns the facts and the best weights."""
    with safe_open(path, framework="pt") as file:
        facts: dict[str, Any] = json.loads(file.metadata()["state"])
        kept = set(file.keys())
        for name, parameter in trained.items():
            with torch.no_grad():
                parameter.copy_(file.get_tensor(f"weight.{name}"))
            if f"step.{name}" not in kept:  # it has never had a gradient
                continue
            optimizer.state[parameter] = {
                "step": file.get_tensor(f"step.{name}"),
                "exp_avg": file.get_tensor(f"exp_avg.{name}").to(parameter.device),
                "exp_avg_sq": file.get_tensor(f"exp_avg_sq.{name}").to(parameter.device),
            }
        best = {name: file.get_tensor(f"best.{name}") for name in trained if f"best.{name}" in kept}
        torch.set_rng_state(file.get_tensor("rng"))
        if "rng.cuda" in kept and torch.cuda.is_available():
            torch.cuda.set_rng_state(file.get_tensor("rng.cuda"))
    if (began := facts.pop("threads")) != torch.get_num_threads():
        progress.say(
            f"  {path.parent.name}: began with {began} threads, goes on with {torch.get_num_threads()}: sums may "
            "differ in their last digits from an uninterrupted run"
        )
    return facts, best
