"""Peak learning rates where none is given. `tiny` learns from scratch, at rates that were tried here. A pretrained
model gets the field's: in full those of Alpaca (SFT) and Zephyr (DPO); by LoRA the usual 1e-4 for SFT, and for
preference training the 1e-5 of RosePO's peers."""

from __future__ import annotations

RATES = {
    "sft": {"tiny": 3e-3, "hf full": 2e-5, "hf lora": 1e-4},
    "preference": {"tiny": 5e-4, "hf full": 5e-7, "hf lora": 1e-5},
}
"""By section of the configuration and kind of model."""


def about(section: str) -> str:
    """The description of a section's ``lr``."""
    tiny, full, lora = (f"{rate:.0e}".replace("e-0", "e-") for rate in RATES[section].values())
    return (
        f"peak learning rate of AdamW; where none is given, {tiny} for tiny, and for hf: {full} in full, {lora} by LoRA"
    )
