"""The baselines reject what their papers, or our reading of them, say."""

from __future__ import annotations

from pathlib import Path

import planted
import pytest
from planted import get

MIXTURE = {"self_hard", "semantic", "popularity"}


@pytest.mark.parametrize(
    ("method", "kinds"),
    [
        ("dpo", {"uniform"}),
        ("cdpo", {"uniform"}),
        ("rosepo", MIXTURE),
        ("rosepo-robust", MIXTURE),
        ("rosepo-self-hard", {"self_hard"}),
        ("rosepo-semantic", {"semantic"}),
        ("rosepo-popularity", {"popularity"}),
    ],
)
def test_a_baseline_rejects_by_its_sampler(method: str, kinds: set[str], tmp_path: Path) -> None:
    """Among equally likely items the other one would have been as likely: the law of a uniform pair is 0."""
    cell = planted.cell(tmp_path / "out", planted.world().write(tmp_path), "preference.pairs=50", method=method)
    for part in ("train", "validation"):
        drawn = get(cell, cell.pairing.rejected)[part]
        assert drawn.mask.all()
        assert set(drawn.kind.ravel().tolist()) == kinds
        assert (drawn.law == 0).all() == (kinds <= {"uniform", "self_hard"})
