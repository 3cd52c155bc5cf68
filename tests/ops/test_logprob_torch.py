"""sequence_logprob among torch's machinery: gradcheck, opcheck, compile, autocast, checkpoint, accumulation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from logprob_cases import DTYPES, Case, call, draw
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine import SequenceLogProb, ops

KEPT, AGAIN = 256 << 20, 0
FORWARD = torch.ops.rosepo.sequence_logprob.default
BACKWARD = torch.ops.rosepo.sequence_logprob_backward.default
# What the forward operator returns, in order.
OUTPUTS = ("logps", "u", "kept", "begin", "order", "slope", "logp", "lse")


def direct(case: Case, *, budget: int, hidden: bool, head: bool, leaves: tuple[Tensor | None, ...] = ()) -> Any:
    """The arguments of the operator itself."""
    tensors = leaves or (case.hidden, case.weight, case.bias)
    return *tensors, *case.triples.values(), case.logit_scale, case.soft_cap, 0, budget, hidden, head


def leaves_of(case: Case, wanted: str = "hidden weight bias") -> list[Tensor]:
    inputs = {"hidden": case.hidden, "weight": case.weight, "bias": case.bias}
    return [x.detach().clone().requires_grad_(name in wanted) for name, x in inputs.items() if x is not None]


def function(case: Case, **options: Any) -> Any:
    def logps(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return ops.sequence_logprob(hidden, weight, bias=bias, **case.triples, **case.squash, **options)

    return logps


@pytest.mark.parametrize("impl", ["cpp", "reference"])
@pytest.mark.parametrize("cap", [0.0, 3.0])
@pytest.mark.parametrize("budget", [KEPT, AGAIN])
def test_gradcheck(budget: int, cap: float, impl: str) -> None:
    case = draw(5, 17, 4, bias=True, soft_cap=cap, logit_scale=0.7)
    options = {"memory_budget": budget, "chunk_rows": 2, "impl": impl}
    assert torch.autograd.gradcheck(function(case, **options), leaves_of(case))


@pytest.mark.parametrize("cap", [0.0, 3.0])
@pytest.mark.parametrize("budget", [KEPT, AGAIN])
@pytest.mark.parametrize("wanted", ["hidden weight bias", "hidden", "weight bias", ""])
def test_opcheck(wanted: str, budget: int, cap: float) -> None:
    case = draw(6, 19, 4, torch.float32, bias=True, soft_cap=cap)
    hidden, head = "hidden" in wanted, "weight" in wanted
    arguments = direct(case, budget=budget, hidden=hidden, head=head, leaves=tuple(leaves_of(case, wanted)))
    assert set(torch.library.opcheck(FORWARD, arguments).values()) == {"SUCCESS"}
    with torch.no_grad():
        saved = FORWARD(*arguments)[1:]
        grad = case.grad.float()
        back = grad, *arguments[:6], *saved, case.logit_scale, case.soft_cap, 0, hidden, head, head
        assert set(torch.library.opcheck(BACKWARD, back).values()) == {"SUCCESS"}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("hidden", "head"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("budget", [KEPT, AGAIN])
@pytest.mark.parametrize("cap", [0.0, 3.0])
def test_nothing_is_computed_that_nobody_wants(
    cap: float, budget: int, hidden: bool, head: bool, dtype: torch.dtype
) -> None:
    case = draw(6, 19, 4, dtype, soft_cap=cap)
    with torch.no_grad():
        found = dict(zip(OUTPUTS, FORWARD(*direct(case, budget=budget, hidden=hidden, head=head)), strict=True))
    kept, again = head and budget > 0, head and budget == 0
    present = {"logps": True, "u": hidden, "kept": kept, "begin": True, "order": True}
    present |= {"slope": cap > 0, "logp": again, "lse": again}
    assert {name: x.numel() > 0 for name, x in found.items()} == present
    if hidden:
        assert found["u"].shape == case.hidden.shape
    memory = [x.untyped_storage().data_ptr() for x in found.values() if x.numel()]
    assert len(set(memory)) == len(memory)


def test_the_budget_is_a_bound_on_what_is_kept() -> None:
    case = draw(6, 19, 4, torch.float32)
    stride = 32  # columns of a kept row: whole lines of 64 bytes
    for budget, kept in ((6 * stride * 4, 6), (6 * stride * 4 - 1, 0)):
        assert FORWARD(*direct(case, budget=budget, hidden=False, head=True))[2].shape == (kept, stride)


def test_no_grad_and_inference_mode_give_the_same_numbers() -> None:
    case = draw(7, 33, 5, torch.float32, bias=True)
    wanted = call(case, "hidden")["logps"]
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            logps = function(case)(*leaves_of(case))
        assert not logps.requires_grad
        assert torch.equal(logps, wanted)


@pytest.mark.parametrize("impl", ["cpp", "reference"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(dynamic: bool, impl: str) -> None:
    def step(hidden: Tensor, weight: Tensor, bias: Tensor, case: Any) -> Tensor:
        logps = ops.sequence_logprob(hidden * 2, weight, bias=bias, **case, soft_cap=5.0, impl=impl)
        return logps.square().mean()

    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for rows, vocabulary in ((7, 33), (9, 33), (12, 41)) if dynamic else ((7, 33),):
        case = draw(rows, vocabulary, 5, torch.float32, bias=True)
        results = []
        for run in (step, compiled):
            leaves = leaves_of(case)
            loss = run(*leaves, case.triples)
            results.append((loss.detach(), *torch.autograd.grad(loss, leaves)))
        torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-6)


def test_the_head_can_be_exported() -> None:
    case = draw(5, 9, 4, torch.float32)

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = SequenceLogProb(torch.nn.Linear(4, 9))

        def forward(self, hidden: Tensor, targets: Tensor, rows: Tensor, sequences: Tensor) -> Tensor:
            return self.head(hidden, targets, rows, sequences, 5)

    module, inputs = Whole(), (case.hidden, *list(case.triples.values())[:3])
    exported = torch.export.export(module, inputs)
    torch.testing.assert_close(exported.module()(*inputs), module(*inputs))


def test_marked_dynamic_dimensions_stay_dynamic() -> None:
    """mark_dynamic raises where a size is made a constant; one graph serves all sizes on one side of the budget."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")

    @torch.compile(fullgraph=True, backend=counter)
    def step(hidden: Tensor, weight: Tensor, triples: Any) -> Tensor:
        return ops.sequence_logprob(hidden, weight, **triples, num_sequences=5, memory_budget=6000).sum()

    for rows, vocabulary in ((7, 33), (11, 47), (9, 39), (30, 80)):  # the last one is above the budget
        case = draw(rows, vocabulary, 5, torch.float32)
        hidden, weight = leaves_of(case)
        triples = {name: x for name, x in case.triples.items() if name != "num_sequences"}
        for x in (hidden, weight, *triples.values()):
            torch._dynamo.mark_dynamic(x, 0)
        found = torch.autograd.grad(step(hidden, weight, triples), (hidden, weight))
        wanted = call(replace(case, grad=torch.ones(5)))
        torch.testing.assert_close(found, (wanted["grad hidden"], wanted["grad weight"]), rtol=1e-6, atol=1e-6)
    assert counter.frame_count == 2


@pytest.mark.parametrize("impl", ["cpp", "reference"])
def test_autocast_casts_as_by_hand(impl: str) -> None:
    case = draw(9, 35, 6, torch.float32, bias=True)
    by_hand = call(case.to(torch.bfloat16), impl=impl)
    with torch.autocast("cpu", torch.bfloat16):
        found = call(case, impl=impl)
        mixed = call(replace(case, hidden=case.hidden.bfloat16()), impl=impl)
        double = call(case.to(torch.float64), impl=impl)
    for name, x in by_hand.items():
        assert torch.equal(found[name], x.to(found[name].dtype)), name
        assert found[name].dtype == torch.float32
        assert torch.equal(mixed[name].float(), x.float()), name
    assert double["logps"].dtype == torch.float64  # as a linear layer, autocast leaves float64 alone


def test_second_derivative_is_refused_and_the_reference_has_it() -> None:
    case = draw(4, 9, 3)
    hidden, weight = leaves_of(case)
    loss = function(case)(hidden, weight).square().sum()
    with pytest.raises(UserError, match=r"no second derivative .*impl='reference'"):
        torch.autograd.grad(loss, hidden, create_graph=True)
    assert torch.autograd.gradgradcheck(function(case, impl="reference"), (hidden, weight))


@pytest.mark.parametrize("mode", ["make_dual", "jvp"])
def test_forward_mode_is_refused_and_the_reference_has_it(mode: str) -> None:
    case = draw(4, 9, 3)
    direction = torch.ones_like(case.hidden)

    def tangent(impl: str) -> Any:
        run = function(case, impl=impl)
        if mode == "jvp":
            return torch.func.jvp(lambda x: run(x, case.weight), (case.hidden,), (direction,))[1]
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(case.hidden, direction)
            return torch.autograd.forward_ad.unpack_dual(run(dual, case.weight)).tangent

    with pytest.raises(UserError, match="hidden has a forward-mode derivative"):
        tangent("cpp")
    step = 1e-6
    moved = [
        call(replace(case, hidden=case.hidden + sign * step * direction), "", impl="cpp")["logps"] for sign in (1, -1)
    ]
    torch.testing.assert_close(tangent("reference"), (moved[0] - moved[1]) / (2 * step), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("budget", [KEPT, AGAIN])
def test_a_graph_may_be_used_twice(budget: int) -> None:
    case = draw(7, 33, 5, torch.float32, bias=True)
    leaves = leaves_of(case)
    logps = function(case, memory_budget=budget)(*leaves)
    grad = case.grad.float()
    first = torch.autograd.grad(logps, leaves, grad, retain_graph=True)
    second = torch.autograd.grad(logps, leaves, grad)
    for x, y in zip(first, second, strict=True):
        assert torch.equal(x, y)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(logps, leaves, grad)


@pytest.mark.parametrize("budget", [KEPT, AGAIN])
def test_gradients_accumulate(budget: int) -> None:
    parts = [draw(7, 33, 5, torch.float32, bias=True, seed=seed) for seed in (1, 2)]
    hidden, weight, bias = leaves_of(parts[0])
    for case in parts:
        function(case, memory_budget=budget)(hidden, weight, bias).backward(case.grad.float())
    singly = [call(replace(x, hidden=parts[0].hidden, weight=parts[0].weight, bias=parts[0].bias)) for x in parts]
    for leaf, name in ((hidden, "grad hidden"), (weight, "grad weight"), (bias, "grad bias")):
        torch.testing.assert_close(leaf.grad, singly[0][name] + singly[1][name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reentrant", [False, True])
def test_inside_a_checkpoint(reentrant: bool) -> None:
    case = draw(7, 33, 5, torch.float32, bias=True)
    leaves = leaves_of(case)
    logps = checkpoint(function(case), *leaves, use_reentrant=reentrant)
    found = torch.autograd.grad(logps, leaves, case.grad.float()) if not reentrant else None
    if found is None:
        logps.backward(case.grad.float())
        found = tuple(x.grad for x in leaves)
    wanted = call(case)
    for x, name in zip(found, ("grad hidden", "grad weight", "grad bias"), strict=True):
        assert torch.equal(x, wanted[name])


def test_a_tensor_changed_after_the_forward_pass_is_noticed() -> None:
    case = draw(7, 33, 5, torch.float32)
    hidden, weight = leaves_of(case)
    logps = function(case)(hidden, weight)
    with torch.no_grad():
        weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        logps.sum().backward()


def test_a_gradient_that_forward_did_not_prepare_is_refused() -> None:
    case = draw(7, 33, 5, torch.float32, bias=True)
    for wanted in ("hidden", "weight", "bias"):
        with pytest.raises(UserError, match="the forward pass did not prepare"):
            FORWARD(*direct(case, budget=KEPT, hidden=False, head=False, leaves=tuple(leaves_of(case, wanted))))
