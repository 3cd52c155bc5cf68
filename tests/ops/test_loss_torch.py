"""The preference losses as torch operators: gradients, fake kernels, compilation, autocast, CUDA graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_errors import TENSORS, cuda_is_here, draw, evaluate
from torch import Tensor
from torch.autograd import forward_ad

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine import ops
from rosepo_bench.losses.arguments import LossArguments, as_tensors
from rosepo_bench.losses.formulas import LOSSES

needs_cuda = pytest.mark.skipif(not cuda_is_here(), reason="no GPU here, or the library is built without CUDA")
DEFAULTS = dict.fromkeys(LossArguments._fields)


def schema(given: dict[str, Any]) -> LossArguments:
    """The arguments as the operator itself takes them."""
    return as_tensors(LossArguments(**DEFAULTS | given))


def small(loss: str, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    given = draw(loss, 5, 3 if LOSSES[loss].many else 1, dtype, "small")
    return {name: x / 10 if name in TENSORS else x for name, x in given.items()}


@pytest.mark.parametrize("implementation", ["cpp", "reference"])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradcheck(loss: str, implementation: str) -> None:
    given = small(loss)
    chosen, rejected = (given.pop(name).requires_grad_() for name in TENSORS[:2])
    function = lambda c, r: ops.preference_loss(c, r, **given, impl=implementation)  # noqa: E731
    assert torch.autograd.gradcheck(function, (chosen, rejected))


@pytest.mark.parametrize("loss", LOSSES)
def test_opcheck(loss: str) -> None:
    given = small(loss)
    given |= {name: given[name].requires_grad_() for name in TENSORS[:2]}
    operator = torch.ops.rosepo.preference_loss.default
    results = torch.library.opcheck(operator, tuple(schema(given)))
    assert set(results.values()) == {"SUCCESS"}


def test_a_gradient_for_one_side_alone() -> None:
    given = small("rosepo")
    whole = evaluate(given, "cpp")
    for k, name in enumerate(TENSORS[:2]):
        given[name].requires_grad_()
        (found,) = torch.autograd.grad(ops.preference_loss(**given).sum(), given[name])
        assert torch.equal(found, whole[1 + k])
        given[name] = given[name].detach()
    assert not ops.preference_loss(**given).requires_grad


def step(chosen: Tensor, rejected: Tensor, given: dict[str, Any], implementation: str) -> tuple[Tensor, Tensor]:
    losses, means = ops.preference_loss_and_statistics(chosen * 2, rejected, **given, impl=implementation)
    alone = ops.preference_loss(chosen, rejected, **given, impl=implementation)
    return losses.mean() + alone.sum(), torch.stack(means)


@pytest.mark.parametrize("implementation", ["cpp", "reference"])
@pytest.mark.parametrize("loss", ["cdpo", "simpo", "kto"])
def test_compiles_without_a_graph_break(loss: str, implementation: str) -> None:
    given = draw(loss, 33, 1, torch.float32, "compile")
    logps = [given.pop(name) for name in TENSORS[:2]]
    results = []
    for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        chosen, rejected = (x.clone().requires_grad_() for x in logps)
        loss_, means = function(chosen, rejected, given, implementation)
        results.append((loss_.detach(), means, *torch.autograd.grad(loss_, [chosen, rejected])))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-7)
    torch._dynamo.reset()


def test_compiled_code_refuses_bad_values_too() -> None:
    given = draw("cdpo", 9, 1, torch.float32, "compiled values")
    given["epsilon"][4] = 1.5
    compiled = torch.compile(ops.preference_loss, fullgraph=True, backend="aot_eager")
    with pytest.raises(RuntimeError, match=r"preference_loss: epsilon\[4\] is 1.5: want 0 to 1"):
        compiled(**given)
    marked = torch.compile(ops.preference_loss, fullgraph=True, backend="aot_eager")(**given, impl="reference")
    assert marked.isnan().tolist() == [k == 4 for k in range(9)]
    with pytest.raises(RuntimeError, match=r"preference_loss: epsilon\[4\] is 1.5: want 0 to 1"):
        compiled(**given, validate=True)
    with pytest.raises(Exception, match="validate is True: values cannot be read"):
        compiled(**given, validate=True, impl="reference")
    torch._dynamo.reset()


@pytest.mark.parametrize("implementation", ["cpp", "reference"])
@pytest.mark.parametrize("loss", LOSSES)
def test_autocast_changes_nothing(loss: str, implementation: str) -> None:
    given = small(loss, torch.float32)
    before = evaluate(given, implementation)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        after = evaluate(given, implementation)
        with pytest.raises(UserError, match=r"chosen is torch.bfloat16: want torch.float32 or torch.float64"):
            ops.preference_loss(**given | {"chosen": given["chosen"].bfloat16()}, impl=implementation)
    for x, y in zip(before[:3], after[:3], strict=True):
        assert torch.equal(x, y)


def test_second_derivative_is_refused_and_the_reference_has_it() -> None:
    given = small("rosepo")
    chosen = given["chosen"].requires_grad_()
    with pytest.raises(UserError, match=r"no second derivative.*impl='reference'"):
        torch.autograd.grad(ops.preference_loss(**given).sum(), chosen, create_graph=True)
    loss = ops.preference_loss(**given, impl="reference")
    (first,) = torch.autograd.grad(loss.sum(), chosen, create_graph=True)
    assert torch.autograd.grad(first.sum(), chosen)[0].abs().min() > 0


@pytest.mark.parametrize("mode", ["make_dual", "jvp"])
@pytest.mark.parametrize("name", [*TENSORS[:4], "epsilon", "beta", "weight", "kl"])
def test_forward_mode_is_refused_and_the_reference_has_it(name: str, mode: str) -> None:
    given = small("kto" if name == "kl" else "rosepo")
    value = 0.1 + given[name] / 2 if name == "epsilon" else given[name]  # within its range on both sides
    direction = torch.ones_like(value)

    def loss(x: Tensor, implementation: str) -> Tensor:
        return ops.preference_loss(**given | {name: x}, impl=implementation)

    def tangent(implementation: str) -> Tensor | None:
        if mode == "jvp":
            return torch.func.jvp(lambda x: loss(x, implementation), (value,), (direction,))[1]
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(value, direction)
            return forward_ad.unpack_dual(loss(dual, implementation)).tangent

    with pytest.raises(UserError, match=f"{name} has a forward-mode derivative.*impl='reference'"):
        tangent("cpp")
    step = 1e-6
    moved = [loss(value + sign * step, "cpp") for sign in (1, -1)]
    torch.testing.assert_close(tangent("reference"), (moved[0] - moved[1]) / (2 * step), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["reference_chosen", "reference_rejected", "epsilon", "beta", "weight", "kl"])
def test_a_gradient_for_anything_but_the_policy_is_refused(name: str) -> None:
    given = small("kto" if name == "kl" else "rosepo")
    given[name] = given[name].requires_grad_()
    with pytest.raises(UserError, match=f"{name} requires a gradient"):
        torch.ops.rosepo.preference_loss(*schema(given))
    for implementation in ("cpp", "reference"):
        with pytest.raises(UserError, match=f"{name} requires a gradient"):
            ops.preference_loss(**given, impl=implementation)


@needs_cuda
def test_cuda_a_bad_value_is_nan_and_said_later() -> None:
    given = {
        name: x.cuda() if isinstance(x, Tensor) else x for name, x in draw("rosepo", 300, 2, torch.float32).items()
    }
    ops.raise_errors()
    given["epsilon"][217, 1] = 1.25
    given |= {name: given[name].requires_grad_() for name in TENSORS[:2]}
    losses = ops.preference_loss(**given)
    slopes = torch.autograd.grad(losses.sum(), [given[name] for name in TENSORS[:2]])
    assert losses.isnan().nonzero().tolist() == [[217]]
    assert all(set(x.isnan().nonzero()[:, 0].tolist()) == {217} for x in slopes)
    with pytest.raises(UserError, match=r"preference_loss: epsilon\[217, 1\] is 1.25: want 0 to 1"):
        ops.raise_errors("cuda")
    ops.raise_errors("cuda")
    for implementation in ("cuda", "reference"):
        with pytest.raises(UserError, match=r"epsilon\[217, 1\] is 1.25: want 0 to 1"):
            ops.preference_loss(**given, impl=implementation, validate=True)


@needs_cuda
def test_cuda_graph_and_stream() -> None:
    given = {
        name: x.cuda() if isinstance(x, Tensor) else x for name, x in draw("rosepo", 300, 2, torch.float32).items()
    }
    wanted = ops.preference_loss(**given)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        assert torch.equal(ops.preference_loss(**given), wanted)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = ops.preference_loss(**given)
        with pytest.raises(UserError, match="validate is True: values cannot be read"):
            ops.preference_loss(**given, validate=True)
        with pytest.raises(UserError, match=r"raise_errors waits .* CUDA graph"):
            ops.raise_errors()
    given["chosen"].add_(1)
    graph.replay()
    assert torch.equal(found, ops.preference_loss(**given))


def test_without_cuda_there_is_nothing_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    ops.raise_errors()
    ops.raise_errors("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ops.raise_errors("cuda")
