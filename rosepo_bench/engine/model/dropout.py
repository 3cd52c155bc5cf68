"""Switches off dropout in a model whose reference log-probs were computed without it."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.dropout import _DropoutNd


def switch_off_dropout(network: nn.Module) -> None:
    """Sets every dropout probability in ``network`` to 0, for good: those of dropout layers (LoRA's included) and those
    that modules store as numbers for attention.

    ``network.eval()`` is not enough, because transformers recomputes activations in training mode only. The
    configuration is left unchanged, so that the same attention is chosen as for the reference.
    """
    for module in network.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if "drop" in name and type(value) in (int, float):
                setattr(module, name, 0.0)


def has_dropout(network: nn.Module) -> bool:
    """Whether any dropout of ``network`` is above 0."""
    return any(
        (isinstance(module, _DropoutNd) and module.p > 0)
        or any("drop" in name and type(value) in (int, float) and value > 0 for name, value in vars(module).items())
        for module in network.modules()
    )
