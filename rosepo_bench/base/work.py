"""The context of one training: seed, label and checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Work:
    """The seed of a training's draws, the ``label`` of its progress and messages, and the ``folder`` that holds its
    checkpoint, written every ``checkpoint_seconds`` seconds. Without a folder an interrupted training starts over.
    ``settings``: where a user sets its learning rate, such as ``sft``; messages name ``sft.lr`` then."""

    seed: int
    label: str = "train"
    folder: Path | None = None
    checkpoint_seconds: float = 15.0
    settings: str = ""

    @property
    def checkpoint(self) -> Path | None:
        """The file from which an interrupted training resumes."""
        return self.folder and self.folder / "checkpoint.safetensors"

    @property
    def curves(self) -> Path | None:
        """The file of its training curves, beside the checkpoint."""
        return self.folder and self.folder / "curves.npz"
