"""Dropout of a model that is trained against log-probs computed without it."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.dropout import _DropoutNd


def switch_off_dropout(network: nn.Module) -> None:
    """Sets every dropout probability in ``network`` to 0, for good: of dropout layers, LoRA's among them, and those
    that modules keep as numbers for attention.

    ``network.eval()`` would not do: transformers recomputes activations in training mode only. The configuration stays
    as it is, so that attention goes the way that the reference went.
    """
    for module in network.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if "drop" in name and type(value) in (int, float):
                setattr(module, name, 0.0)
