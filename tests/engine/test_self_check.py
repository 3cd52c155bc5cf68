"""The first pass of a network measures whether the forest gives what the network's own forward gives."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from equality import CASES, case_name
from small_models import CONTEXT, network
from torch import Tensor, nn

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine import ForestModel
from rosepo_bench.engine.model import attention, self_check

GROUPS = [[([1, 2, 3], [4, 5])]]


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_supported_models_pass_with_room(case: Any, dtype: torch.dtype | None) -> None:
    model = ForestModel(network(case[0], torch.float32, **case[1]), dtype=dtype)
    found = model.check()
    assert found is not None
    assert 0 < found.difference < found.tolerance / 2
    assert found.tolerance < (1e-4 if dtype is None else 0.3)
    longest = max(len(prompt) + len(response) for tree in self_check.probe(model) for prompt, response in tree)
    assert longest > attention.window_of(model.network.config)


CHECKED = 5  # passes of a check: four separate rows and a forest


class Summed(nn.Module):
    """Mixes tokens outside of attention: over a forest it would mix branches."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.inner(x) + 0.01 * x.cumsum(1)
        return mixed


def mixes_tokens(model: Any) -> None:
    model.model.layers[1].mlp = Summed(model.model.layers[1].mlp)


def scales_logits(model: Any) -> None:
    model.logit_scale = 0.9  # another than the configuration's, which the forest reads


def counts_positions(model: Any) -> None:
    plain = model.model.rotary_emb.forward
    model.model.rotary_emb.forward = lambda x, position_ids: plain(x, torch.arange(x.shape[1])[None])


@pytest.mark.parametrize(
    ("kind", "change"), [("llama", mixes_tokens), ("cohere", scales_logits), ("llama", counts_positions)]
)
def test_another_result_than_by_its_own_forward_is_refused(kind: str, change: Any) -> None:
    plain = network(kind, torch.float32)
    change(plain)
    model = ForestModel(plain)
    sentence = r"this \w+ForCausalLM gives other log-probs over the token forest .* differ by \S+, rounding in \S+32"
    for _ in range(2):
        with pytest.raises(UserError, match=sentence):
            model(GROUPS)
    assert model.self_check is None
    assert plain.config._attn_implementation == "rosepo_forest"


def test_a_forgotten_window_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "for_layers", lambda config, width, mask: mask(0))
    with pytest.raises(UserError, match="gives other log-probs over the token forest"):
        ForestModel(network("mistral", torch.float32, sliding_window=20))(GROUPS)


def test_once_for_a_network_under_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(self_check, "probe", lambda model, probe=self_check.probe: made.append(1) or probe(model))
    plain = network("llama", torch.float32)
    model = ForestModel(plain)
    assert model.self_check is None
    model(GROUPS)
    first = model.self_check
    model(GROUPS)
    again = ForestModel(plain)
    again(GROUPS)
    assert again.self_check is first is not None
    assert len(made) == 1
    ForestModel(plain, dtype=torch.bfloat16)(GROUPS)
    ForestModel(plain, attention="dense")(GROUPS)
    assert len(made) == 3


@pytest.mark.parametrize("training", [True, False])
def test_nothing_else_notices(training: bool) -> None:
    plain: Any = network("gpt2", torch.float32)  # with dropout, which draws
    plain.train(training).transformer.wte.eval()
    modes, seen = [part.training for part in plain.modules()], []
    plain.transformer.h[0].register_forward_hook(lambda *_: seen.append(1))
    weights = {name: value.clone() for name, value in plain.state_dict().items()}
    model, state = ForestModel(plain, attention="dense"), torch.get_rng_state()
    model.check()
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in plain.modules()] == modes
    assert [p for p in plain.parameters() if p.grad is not None] == []
    assert len(seen) == CHECKED  # hooks of layers run, as they do in every pass
    assert all(torch.equal(value, weights[name]) for name, value in plain.state_dict().items())
    assert plain.config._attn_implementation == "rosepo_forest"
    torch.manual_seed(0)
    first = model(GROUPS)
    torch.manual_seed(0)
    fresh = ForestModel(plain, attention="dense", impl="reference")  # to be checked at its first pass
    torch.testing.assert_close(fresh(GROUPS), first, rtol=0, atol=1e-5)
    assert len(seen) == 2 * CHECKED + 2


@pytest.mark.parametrize("context", [2, 3, 8, CONTEXT])
def test_a_short_context(context: int) -> None:
    assert ForestModel(network("llama", torch.float32, max_position_embeddings=context)).check() is not None


def test_weights_that_are_not_finite_are_left_to_others() -> None:
    plain: Any = network("llama", torch.float32)
    with torch.no_grad():
        plain.lm_head.weight[0] = math.nan
    assert ForestModel(plain).check() is None
