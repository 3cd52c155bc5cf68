"""Makes a model of transformers attend by the forest's attention, and keeps it so."""

from __future__ import annotations

from typing import Any

from rosepo_bench.engine.model.attention import attend

NAME = "rosepo_forest"


class Installed(str):
    """``NAME``, which a pickle or a copy of the configuration holds as the implementation ``instead`` of which it
    stands: a whole model written by ``torch.save`` loads where this package is not imported."""

    instead: str

    @staticmethod
    def over(other: str | None) -> Installed:
        name = Installed(NAME)
        name.instead = getattr(other, "instead", other) or "eager"
        return name

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (self.instead,)


def install(network: Any) -> None:
    """Makes ``network``, a transformers model, attend through ``attend``. Masks other than the forest's, such as those
    of its ``generate``, work as with SDPA.

    Called before every pass, as others can change the choice too: ``set_attn_implementation``, or a second model made
    of the same configuration.
    """
    if _is_installed(network):
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    network.set_attn_implementation(Installed.over(network.config._attn_implementation))
    assert _is_installed(network), "every supported model type goes through AttentionInterface"


def _is_installed(network: Any) -> bool:
    body = network.base_model
    return network.config._attn_implementation == NAME == body.config._attn_implementation
