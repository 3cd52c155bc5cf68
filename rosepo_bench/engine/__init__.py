"""The engine. The operators (``ops``), the token forest (``forest``) and the head need only torch and numpy."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rosepo_bench.engine.model.forest_model import ForestModel
    from rosepo_bench.engine.ops import preference_loss, sequence_logprob
    from rosepo_bench.engine.ops.head import SequenceLogProb

__all__ = ["ForestModel", "SequenceLogProb", "preference_loss", "sequence_logprob"]

_MODULES = {"ForestModel": "model.forest_model", "SequenceLogProb": "ops.head"}


def __getattr__(name: str) -> Any:
    """Imports ``name`` on first use, so that ``import rosepo_bench.engine`` is quick and loads no library."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'ops')}"), name)
