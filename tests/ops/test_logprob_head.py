"""SequenceLogProb as a module: bias, tied embeddings, LoRA, DDP and FSDP2; and that the engine needs torch and numpy
alone."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from logprob_cases import call, draw, error, exact
from logprob_processes import WAYS
from safetensors.torch import load_file
from torch import Tensor, nn

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine import SequenceLogProb

ROOT = Path(__file__).resolve().parents[2]


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_head_with_its_settings(dtype: torch.dtype, bias: bool) -> None:
    case = draw(7, 33, 5, dtype, bias=bias, soft_cap=3.0, logit_scale=0.7)
    layer = linear(case.weight, case.bias)
    module = SequenceLogProb(layer, **case.squash, chunk_rows=2, memory_budget=0)
    hidden = case.hidden.clone().requires_grad_()
    logps = module(hidden, *case.triples.values())
    logps.backward(case.grad.float())
    wanted = call(case, "hidden weight bias" if bias else "hidden weight", chunk_rows=2, memory_budget=0)
    found = {"logps": logps.detach(), "grad hidden": hidden.grad, "grad weight": layer.weight.grad}
    found |= {"grad bias": layer.bias.grad} if bias else {}
    assert found.keys() == wanted.keys()
    for name, x in wanted.items():
        assert torch.equal(found[name], x), name
    assert set(module.state_dict()) == {f"lm_head.{name}" for name in layer.state_dict()}


def test_a_frozen_head_gets_no_gradient_and_hidden_does() -> None:
    case = draw(7, 33, 5, torch.float32)
    module = SequenceLogProb(linear(case.weight, None)).requires_grad_(False)
    hidden = case.hidden.clone().requires_grad_()
    module(hidden, *case.triples.values()).backward(case.grad.float())
    assert module.lm_head.weight.grad is None
    assert torch.equal(hidden.grad, call(case, "hidden")["grad hidden"])  # type: ignore[arg-type]


@pytest.mark.parametrize("budget", [0, 256 << 20])
def test_tied_embeddings_learn_from_both_uses(budget: int) -> None:
    case = draw(6, 33, 5)
    embedding = nn.Embedding(33, 5, dtype=torch.float64)
    layer = linear(case.weight, None)
    embedding.weight = layer.weight
    tokens = torch.tensor([3, 1, 4, 1, 5, 9])
    SequenceLogProb(layer, memory_budget=budget)(embedding(tokens).tanh(), *case.triples.values()).backward(case.grad)

    weight = case.weight.clone().requires_grad_()
    rows = weight[tokens].tanh()
    through_head = exact(replace(case, hidden=rows.detach()))
    (through_rows,) = torch.autograd.grad(rows, weight, through_head[1])
    torch.testing.assert_close(layer.weight.grad, through_rows + through_head[2], rtol=1e-12, atol=1e-12)
    assert through_rows.abs().max() > 0.01  # both uses matter


def test_a_head_adapted_by_lora_is_refused_by_name() -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(
        vocab_size=33, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )  # fmt: skip
    adapted = get_peft_model(LlamaForCausalLM(shape), LoraConfig(r=2, target_modules=["q_proj", "lm_head"]))
    with pytest.raises(UserError, match=r"lm_head is a Linear \(peft\S*\): want a plain torch.nn.Linear. Merge LoRA"):
        SequenceLogProb(adapted.get_output_embeddings())
    body = get_peft_model(LlamaForCausalLM(shape), LoraConfig(r=2, target_modules=["q_proj"]))
    assert SequenceLogProb(body.get_output_embeddings()).lm_head.weight.shape == (33, 8)


class Quantised(nn.Linear):
    pass


@pytest.mark.parametrize("other", [Quantised(3, 4), nn.Identity(), nn.Sequential(nn.Linear(3, 4))])
def test_other_heads_are_refused_by_name(other: nn.Module) -> None:
    with pytest.raises(UserError, match=f"lm_head is a {type(other).__name__} .*want a plain torch.nn.Linear"):
        SequenceLogProb(other)


def test_arguments_are_checked_when_the_head_is_used() -> None:
    case = draw(7, 33, 5, torch.float32)
    for settings, message in (
        ({"impl": "fast"}, "impl is 'fast'"),
        ({"soft_cap": -1.0}, "soft_cap is -1"),
        ({"memory_budget": -1}, "memory_budget is -1"),
    ):
        module = SequenceLogProb(linear(case.weight, None), **settings)  # type: ignore[arg-type]
        with pytest.raises(UserError, match=message):
            module(case.hidden, *case.triples.values())


def test_ddp_and_fsdp2_compute_what_one_process_does(tmp_path: Path) -> None:
    """Two processes on the CPU (gloo): DDP, FSDP2 with head and body sharded apart and as a whole."""
    script = Path(__file__).with_name("logprob_processes.py")
    env = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, script, str(rank), "2", str(tmp_path)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    found = load_file(tmp_path / "found.safetensors")
    names = {name.partition(": ")[2] for name in found}
    assert names == {"losses", "body.weight", "body.bias", "head.lm_head.weight", "head.lm_head.bias"}
    for way in WAYS[1:]:
        for name in names:
            wanted = found[f"one: {name}"]
            assert error(found[f"{way}: {name}"], wanted.double()) <= 1e-6 * float(wanted.abs().max()), (way, name)
    in_forward, in_constructor = (tmp_path / "said.txt").read_text().splitlines()
    assert re.match(r"lm_head.weight is a DTensor: .*apply fully_shard to SequenceLogProb", in_forward)
    assert re.match(r"lm_head is a FSDPLinear .*shard SequenceLogProb rather than the layer", in_constructor)


ALONE = """
import importlib.abc, sys
class Others(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is blocked here", name=name)
BLOCKED = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Others())
import rosepo_bench.engine
assert "torch" not in sys.modules
from rosepo_bench.engine import ForestModel, SequenceLogProb, forest, ops
from rosepo_bench.engine.model import architectures, attention, limits
from rosepo_bench.engine.ops import library
assert library.info()["state"] == "loaded"
import torch
x = torch.ones(2, 3, requires_grad=True)
y = torch.tensor([0, 1])
logps = SequenceLogProb(torch.nn.Linear(3, 4))(x, y, y, y, 2)
ops.preference_loss(logps, logps.flip(0), logps.detach(), logps.detach(), epsilon=0.1, beta=0.1).mean().backward()
assert x.grad.isfinite().all()
tree = forest.build([([1, 2], [3]), ([1, 2], [4])], context=3)
assert forest.collate([tree]).end.tolist() == tree.end.tolist() == [2, 2]
"""


def blocked() -> set[str]:
    """Every installed package but torch, numpy, what these need, and this one."""
    needed: set[str] = set()
    waiting = ["torch", "numpy", "rosepo_bench"]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in needed:
            continue
        needed.add(name)
        if name == "rosepo-bench":
            continue
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        waiting += [re.match(r"[\w.-]+", text)[0] for text in requirements if "extra ==" not in text]  # type: ignore[index]
    owners = importlib.metadata.packages_distributions()
    return {
        package
        for package, names in owners.items()
        if not any(re.sub(r"[-_.]+", "-", name).lower() in needed for name in names) and package.isidentifier()
    }


def test_the_engine_needs_torch_and_numpy_alone() -> None:
    others = blocked()
    assert {"jaxtyping", "transformers", "peft", "pydantic", "scipy", "safetensors", "rich"} <= others
    assert not {"torch", "numpy", "rosepo_bench", "typing_extensions"} & others
    command = [sys.executable, "-c", ALONE, ",".join(sorted(others))]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_example_of_the_operators() -> None:
    """`make engine-alone` runs it in an environment that has nothing else."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "engine.md").read_text(), re.DOTALL)
    (block,) = [text for text in blocks if "rosepo_bench.engine.ops" in text]
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["loss"].shape == (1,)
    assert names["hidden"].grad[0].abs().max() > 0
    assert names["hidden"].grad[3].abs().max() == 0  # no triple is on that row
