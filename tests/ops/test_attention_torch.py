"""forest_attention among torch's machinery, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from attention_cases import Case, call, draw, ends, forest
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine import ops
from rosepo_bench.engine.ops.attention_reference import tree_masks

FORWARD = torch.ops.rosepo.forest_attention.default
BACKWARD = torch.ops.rosepo.forest_attention_backward.default


def leaves_of(case: Case) -> list[Tensor]:
    return [x.detach().clone().requires_grad_() for x in case.heads]


def function(case: Case, **options: Any) -> Any:
    return lambda *heads: ops.forest_attention(*heads, case.end, **case.settings, **options)


@pytest.mark.parametrize("impl", ["cpp", "reference"])
@pytest.mark.parametrize("window", [0, 3])
def test_gradcheck(window: int, impl: str) -> None:
    case = draw(*forest(13, branch=0.3, new=0.1, seed=1), heads=2, groups=1, width=3, window=window)
    assert torch.autograd.gradcheck(function(case, impl=impl), leaves_of(case))


@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(dtype: torch.dtype, window: int) -> None:
    case = draw(*forest(20, seed=1), heads=4, groups=2, width=5, dtype=dtype, window=window)
    arguments = (*leaves_of(case), case.end, case.depth if window else None, window, 0.4)
    assert set(torch.library.opcheck(FORWARD, arguments).values()) == {"SUCCESS"}
    with torch.no_grad():
        out, lse = FORWARD(*arguments)
        back = (case.grad, *arguments[:5], out, lse, window, 0.4)
        assert set(torch.library.opcheck(BACKWARD, back).values()) == {"SUCCESS"}


def test_the_second_output_is_the_logsumexp() -> None:
    case = draw(*forest(40, seed=2), width=6)
    lse = FORWARD(*case.heads, case.end, None, 0, 0.3)[1]
    scores = (case.query @ case.key.mT * 0.3).masked_fill(~case.mask(), -float("inf"))
    torch.testing.assert_close(lse, scores.logsumexp(-1))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(dynamic: bool) -> None:
    def step(query: Tensor, key: Tensor, value: Tensor, end: Tensor) -> Tensor:
        return ops.forest_attention(query * 2, key, value, end).square().mean()

    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for tokens in (7, 50, 90) if dynamic else (50,):
        case = draw(*forest(tokens, seed=3), heads=4, groups=2, width=16, dtype=torch.float32)
        results = []
        for run in (step, compiled):
            leaves = leaves_of(case)
            loss = run(*leaves, case.end)
            results.append((loss.detach(), *torch.autograd.grad(loss, leaves)))
        torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-6)


def test_only_the_gradients_that_are_wanted() -> None:
    case = draw(*forest(30, seed=4), width=4, dtype=torch.float32)
    wanted = call(case)
    for at, name in enumerate(("query", "key", "value")):
        heads = [x.detach().requires_grad_(at == number) for number, x in enumerate(case.heads)]
        (grad,) = torch.autograd.grad(function(case)(*heads), heads[at], case.grad)
        assert torch.equal(grad, wanted[f"grad {name}"])
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert torch.equal(function(case)(*case.heads), wanted["result"])


@pytest.mark.parametrize("impl", ["cpp", "reference"])
def test_autocast_casts_as_by_hand(impl: str) -> None:
    case = draw(*forest(30, seed=5), width=16, dtype=torch.float32)
    by_hand = call(case.to(torch.bfloat16), impl=impl)["result"]
    with torch.autocast("cpu", torch.bfloat16):
        found = function(case, impl=impl)(*case.heads)
        double = function(case, impl=impl)(*case.to(torch.float64).heads)
    assert torch.equal(found, by_hand)
    assert double.dtype == torch.float64


@pytest.mark.parametrize("impl", ["cpp", "reference"])
@pytest.mark.parametrize("kept", [(0, 1), (2,), (0,), (1, 2)])
def test_autocast_casts_mixed_heads_as_torch_casts_its_own(impl: str, kept: tuple[int, ...]) -> None:
    """Rotary positions leave query and key in float32 beside a value in bfloat16. Result and gradients are those of
    heads that were cast by hand, the gradients in the dtypes of what was given; torch's own attention agrees."""
    end, depth = forest(30, seed=5)
    case = draw(end, depth, width=16, dtype=torch.float32)
    mixed = [x if at in kept else x.bfloat16() for at, x in enumerate(case.heads)]
    leaves = [x.detach().clone().requires_grad_() for x in mixed]
    by_hand = [x.detach().bfloat16().requires_grad_() for x in mixed]
    with torch.autocast("cpu", torch.bfloat16):
        found = function(case, impl=impl)(*leaves)
        (mask,) = tree_masks(torch.tensor([30] * 30))
        chain = ops.forest_attention(*mixed, torch.tensor([30] * 30), impl=impl)
        groups = len(mixed[0]) // len(mixed[1])
        key, value = (x.repeat_interleave(groups, 0)[None] for x in mixed[1:])
        torchs = torch.nn.functional.scaled_dot_product_attention(mixed[0][None], key, value, attn_mask=mask)[0]
    wanted = function(case, impl=impl)(*by_hand)
    assert found.dtype == chain.dtype == torchs.dtype == torch.bfloat16
    assert torch.equal(found, wanted)
    torch.testing.assert_close(chain, torchs, rtol=2e-2, atol=2e-2)
    grads = torch.autograd.grad(found, leaves, case.grad.bfloat16())
    for given, one, two in zip(leaves, grads, torch.autograd.grad(wanted, by_hand, case.grad.bfloat16()), strict=True):
        assert one.dtype == given.dtype
        assert torch.equal(one.bfloat16(), two)


def test_without_autocast_mixed_heads_are_refused() -> None:
    case = draw(*forest(9, seed=6), width=8, dtype=torch.float32)
    query, key, value = case.heads
    with pytest.raises(UserError, match=r"value is torch.bfloat16, query is torch.float32: want one dtype"):
        function(case)(query, key, value.bfloat16())
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(UserError, match=r"value is torch.float64, query is"):
        function(case)(query, key, value.double())  # autocast leaves float64 alone, as torch's does
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(UserError, match="query is a list: want a tensor"):
        function(case)(query.tolist(), key, value)


def test_other_derivatives_are_refused_and_the_reference_has_them() -> None:
    case = draw(*forest(9, seed=6), width=3)
    leaves = leaves_of(case)

    def tangent(impl: str) -> Tensor:
        run = function(case, impl=impl)
        ones = torch.ones_like(case.key)
        return torch.func.jvp(lambda key: run(case.query, key, case.value), (case.key,), (ones,))[1]

    with pytest.raises(UserError, match=r"no second derivative .*impl='reference' under .*MATH"):
        torch.autograd.grad(function(case)(*leaves).square().sum(), leaves, create_graph=True)
    with pytest.raises(UserError, match=r"key has a forward-mode derivative .*impl='reference' under .*MATH"):
        tangent("cpp")
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(function(case, impl="reference"), leaves)
        assert torch.isfinite(tangent("reference")).all()


def arguments(**changed: Any) -> dict[str, Any]:
    """7 tokens in two trees, 4 query heads and 2 key heads of width 3."""
    depth = [0, 1, 2, 2, 1, 0, 1]
    case = draw(ends(depth), torch.tensor(depth), heads=4, groups=2, width=3, dtype=torch.float32)
    good = {"query": case.query, "key": case.key, "value": case.value, "end": case.end, "depth": None, "window": 0,
            "scaling": 0.5}  # fmt: skip
    assert changed.keys() <= good.keys()
    return {**good, **changed}


def put(at: int, value: int) -> Tensor:
    end: Tensor = arguments()["end"].clone()
    end[at] = value
    return end


END, QUERY, DEPTH = arguments()["end"], arguments()["query"], torch.tensor([0, 1, 2, 2, 1, 0, 1])
METADATA: list[tuple[dict[str, Any], str]] = [
    ({"query": QUERY.long()}, "query is "),
    ({"query": QUERY[0]}, "query has "),
    ({"query": QUERY[:3]}, r"query has 3 heads: want a multiple of key's, 2"),
    ({"query": QUERY[:0]}, r"query has 0 heads"),
    ({"query": QUERY[..., :0], "key": QUERY[:2, :, :0], "value": QUERY[:2, :, :0]}, "query has "),
    *[({name: QUERY[:2, :, :2]}, rf"{name} has ") for name in ("key", "value")],
    *[({name: QUERY[:2, :5]}, rf"{name} has ") for name in ("key", "value")],
    *[({name: QUERY[:2].double()}, rf"{name} (is torch.float64|differs from query)") for name in ("key", "value")],
    ({"value": QUERY[:1]}, "value has 1 heads, key has 2"),
    *[({"end": x}, "end (is|has) ") for x in (END.int(), END[:6], END[:, None], END.double())],
    *[({"depth": x, "window": 2}, "depth (is|has) ") for x in (DEPTH.int(), DEPTH[:6])],
    ({"window": -1}, "window is -1: want 0 for none"),
    ({"window": 3}, "window is 3, which counts in depths: give depth"),
    *[({"scaling": x}, "scaling is (nan|inf)") for x in (float("nan"), float("inf"))],
]  # fmt: skip
VALUES: list[tuple[dict[str, Any], str]] = [
    ({"end": put(2, 2)}, r"end\[2\] is 2: want 3 to 4 \(the end of its parent\)"),
    ({"end": put(0, 8)}, r"end\[0\] is 8: want 1 to 7 \(the tokens\)"),
    ({"end": put(1, 6)}, r"end\[1\] is 6: want 2 to 5 \(the end of its parent\)"),
    ({"end": put(6, -(1 << 62))}, r"end\[6\] is -4611686018427387904: want 7 to 7"),
    ({"end": put(5, 1 << 62)}, r"end\[5\] is 4611686018427387904: want 6 to 7 \(the tokens\)"),
    ({"depth": torch.zeros(7).long(), "window": 2}, r"depth\[1\] is 0: want 1 to 1073741824, more than that of its"),
    ({"depth": DEPTH - 1, "window": 2}, r"depth\[0\] is -1: want 0"),
    ({"depth": DEPTH + (1 << 40), "window": 2}, r"depth\[0\] is 1099511627776: want 0 to 1073741824"),
]


@pytest.mark.parametrize("impl", ["cpp", "reference"])
@pytest.mark.parametrize(("changed", "message"), METADATA + VALUES)
def test_refused(changed: dict[str, Any], message: str, impl: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        ops.forest_attention(**arguments(**changed), impl=impl)


@pytest.mark.parametrize(("changed", "message"), METADATA + VALUES)
def test_the_operators_themselves_refuse(changed: dict[str, Any], message: str) -> None:
    given = arguments(**changed)
    with torch.no_grad(), pytest.raises(RuntimeError, match=f"^forest_attention: {message}"):
        FORWARD(*given.values())
    saved = (QUERY.clone(), torch.zeros(4, 7))
    heads, rest = list(given.values())[:5], list(given.values())[5:]
    with torch.no_grad(), pytest.raises(RuntimeError, match=f"^forest_attention: {message}"):
        BACKWARD(QUERY, *heads, *saved, *rest)


@pytest.mark.parametrize("name", ["grad", "out", "lse"])
def test_backward_refuses_what_forward_did_not_return(name: str) -> None:
    given = list(arguments().values())
    out, lse = FORWARD(*given)
    good = {"grad": torch.ones_like(out), "out": out, "lse": lse}
    for bad in (good[name][:, :-1], good[name].double(), good[name][0]):
        x = {**good, name: bad}
        with pytest.raises(RuntimeError, match=f"^forest_attention: backward: {name} has another"):
            BACKWARD(x["grad"], *given[:5], x["out"], x["lse"], *given[5:])


@pytest.mark.parametrize("impl", ["cpp", "reference"])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"end": [1, 2]}, "end is a list: want a tensor"),
        ({"query": None}, "query is a NoneType: want a tensor"),
        ({"key": QUERY[:2].to("meta")}, "key is on meta, query is on cpu"),
        ({"window": 2.0}, "window is 2.0: want"),
        ({"window": 2**70}, f"window is {2**70}: want"),
        ({"window": True}, "window is True: want"),
        ({"key": QUERY[:2].to_sparse()}, "key has layout torch.sparse_coo: want a dense tensor"),
        ({"window": torch.tensor(2)}, r"window is tensor\(2\): want"),
        ({"scaling": torch.tensor(1.0, requires_grad=True)}, "scaling is tensor"),
    ],
)
def test_refused_by_the_function(changed: dict[str, Any], message: str, impl: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        ops.forest_attention(**arguments(**changed), impl=impl)


def test_what_is_not_compiled_is_refused() -> None:
    with pytest.raises(UserError, match=r"^soft_cap is 3.0, which is not compiled: choose impl='reference'"):
        ops.forest_attention(**arguments(), soft_cap=3.0)
    with pytest.raises(UserError, match=r"^soft_cap is -1.0"):
        ops.forest_attention(**arguments(), soft_cap=-1.0, impl="reference")
    with pytest.raises(UserError, match=r"choose impl='cpp' or 'auto'"):
        ops.forest_attention(**arguments(), impl="cuda")
    with pytest.raises(UserError, match=r"no operator is compiled for meta"):
        ops.forest_attention(**{name: x.to("meta") if isinstance(x, Tensor) else x for name, x in arguments().items()})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_cuda_the_reference_alone_runs() -> None:
    case = draw(*forest(60, seed=7), width=16, dtype=torch.float32)
    moved = replace(
        case, **{name: getattr(case, name).cuda() for name in ("query", "key", "value", "grad", "end", "depth")}
    )
    with pytest.raises(UserError, match=r"compiled for the CPU alone, .* model.attention='flex', or impl='reference'"):
        call(moved)
    found, wanted = call(moved, impl="reference"), call(case)
    torch.testing.assert_close({k: x.cpu() for k, x in found.items()}, wanted, rtol=1e-4, atol=1e-4)
