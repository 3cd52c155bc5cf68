"""The engine alone, on a transformers model that somebody else made."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from saved_model import save_model
from small_models import network

import rosepo_bench.engine as engine
from rosepo_bench.base.errors import UserError
from rosepo_bench.engine import ForestModel

ROOT = Path(__file__).resolve().parents[2]
TITLES = ["Iron Harbor", "Iron Harbor II", "Glass Orchard", "Quiet Ember", "Glass Harbor", "Quiet Orchard II",
          "Ember", "Harbor of Glass", "Orchard"]  # fmt: skip


def test_the_example_of_a_step_trains_with_seven_rejected(tmp_path: Path) -> None:
    save_model("qwen3", tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "engine.md").read_text(), re.DOTALL)
    (block,) = [text for text in blocks if "ForestModel" in text]
    data = [(f"{TITLES[k]}, {TITLES[k + 1]}:", [*TITLES[k:8], *TITLES[:k]]) for k in range(4)]
    names: dict[str, Any] = {"NAME": str(tmp_path), "data": data}
    exec(block, names)
    # Policy and reference begin equal: the loss of K rejected is then log(K + 1).
    assert names["loss"].shape == (4,)
    assert names["loss"].max() < math.log(8)
    margins = (names["logps"] - names["reference"])[:, :1] - (names["logps"] - names["reference"])[:, 1:]
    assert (margins.mean(1) > 0).all()
    lists, model = names["lists"], names["model"]
    alone = torch.stack([model([[pair]])[0] for one in lists for pair in one]).view(-1, 8)
    torch.testing.assert_close(model(lists).view(-1, 8), alone, rtol=0, atol=1e-4)


def test_what_the_model_cannot_take_is_refused() -> None:
    model = ForestModel(network("llama", torch.float32))
    with pytest.raises(UserError, match="sequence 0 of group 1: a prompt of 60 tokens with a response of 9 is longer"):
        model([[([1], [2])], [([1] * 60, [2] * 9)]])
    with pytest.raises(UserError, match="token 0 of its response is 61, the vocabulary ends at 60"):
        model([[([1], [61])]])
    with pytest.raises(UserError, match="no group"):
        model([])


def test_the_names_of_the_package() -> None:
    for name in engine.__all__:
        assert getattr(engine, name).__name__ == name
    unknown: Any = engine
    with pytest.raises(AttributeError, match="no attribute 'SequenceLogprob'"):
        _ = unknown.SequenceLogprob
