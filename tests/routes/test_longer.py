"""The control for longer training: it starts from SFT and takes the steps and tokens of preference training."""

from __future__ import annotations

from pathlib import Path

import planted
import pytest
from planted import get


def far(one: object, two: object) -> float:
    return max(float((a - b).detach().abs().max()) for a, b in zip(one.parameters(), two.parameters(), strict=True))  # type: ignore[attr-defined]


def test_it_takes_the_steps_and_tokens_of_preference_training(tmp_path: Path) -> None:
    prefix = planted.world().write(tmp_path)
    settings = ("preference.pairs=60", "preference.epochs=3", "preference.batch=8")
    longer, dpo = (planted.cell(tmp_path / "out", prefix, *settings, method=name) for name in ("sft-longer", "dpo"))
    assert longer.trained is not None
    assert dpo.trained is not None
    mine, theirs = (get(cell, cell.trained).report for cell in (longer, dpo))
    assert mine["steps"] == theirs["steps"] > 3
    assert mine["tokens"] == pytest.approx(theirs["tokens"], rel=0.25)


def test_it_goes_on_from_sft(tmp_path: Path) -> None:
    """With a learning rate of next to nothing it is SFT; with the usual one it is not."""
    prefix = planted.world().write(tmp_path)
    still = planted.cell(tmp_path / "out", prefix, "preference.lr=1e-9", method="sft-longer")
    moved = planted.cell(tmp_path / "out", prefix, "preference.lr=1e-2", method="sft-longer")
    sft, fresh = planted.network(still, still.sft), planted.network(still, None)
    assert far(planted.network(still, still.trained), sft) < 1e-6 < 1e-2 < far(fresh, sft)
    assert far(planted.network(moved, moved.trained), sft) > 1e-3
