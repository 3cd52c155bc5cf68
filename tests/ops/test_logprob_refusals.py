"""What sequence_logprob refuses: the argument and its value named, the same by ops.sequence_logprob (a UserError) and
by the operators themselves (a RuntimeError); never a crash, never a read out of bounds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import derive
from rosepo_bench.engine import ops
from rosepo_bench.engine.ops import implementation

NAN, INF = float("nan"), float("inf")
FLOATS = ("hidden", "weight", "bias")
INDICES = ("targets", "row_of_target", "sequence_of_target")
FORWARD = torch.ops.rosepo.sequence_logprob
BACKWARD = torch.ops.rosepo.sequence_logprob_backward


def arguments(**changed: Any) -> dict[str, Any]:
    """3 rows of width 2, 4 tokens, 3 triples, 2 sequences; the last row predicts nothing."""
    generator = torch.Generator().manual_seed(derive(0, "logprob refusals"))
    good = {
        "hidden": torch.randn(3, 2, generator=generator),
        "weight": torch.randn(4, 2, generator=generator),
        "bias": torch.randn(4, generator=generator),
        "targets": torch.tensor([1, 3, 0]),
        "row_of_target": torch.tensor([0, 1, 1]),
        "sequence_of_target": torch.tensor([0, 0, 1]),
        "num_sequences": 2,
        "logit_scale": 1.0,
        "soft_cap": 0.0,
        "chunk_rows": 0,
        "memory_budget": 1 << 20,
    }
    assert changed.keys() <= good.keys()
    return {**good, **changed}


def through_function(impl: str, **changed: Any) -> Tensor:
    return ops.sequence_logprob(**arguments(**changed), impl=impl)


def put(name: str, place: tuple[int, ...], value: float, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The argument with one value changed, and all of one dtype."""
    given = {key: x.to(dtype) for key, x in arguments().items() if key in FLOATS}
    changed = given.get(name, arguments()[name]).clone()
    changed[place] = value
    return {**given, name: changed}


OVERFLOW = r"(the )?log-probs (of hidden\[0\] )?are not finite, .*: their product overflows"
METADATA: list[tuple[dict[str, Any], str]] = [
    *[({"hidden": x}, r"hidden has (shape|\d dimensions)") for x in (torch.zeros(3), torch.zeros(3, 2, 1))],
    *[({"weight": x}, r"weight has (shape|\d dimensions|size 3)") for x in (torch.zeros(4), torch.zeros(4, 3))],
    *[({"bias": x}, r"bias has (shape|\d dimensions|size 5)") for x in (torch.zeros(4, 1), torch.zeros(5))],
    *[({name: torch.zeros(3, 1).long()}, rf"{name} has (shape \[3, 1\]|2 dim)") for name in INDICES],
    *[({name: torch.zeros(5).long()}, rf"{name} has (shape \[5\]|5 triples)") for name in INDICES[1:]],
    ({"targets": torch.zeros(5).long()}, r"row_of_target has (shape \[3\]|3 triples)"),
    *[({"hidden": arguments()["hidden"].to(x)}, "hidden is ") for x in (torch.int64, torch.complex64, torch.bool)],
    *[({name: arguments()[name].double()}, rf"{name} (is torch.float64|differs)") for name in FLOATS[1:]],
    *[({"hidden": arguments()["hidden"].bfloat16()}, r"weight (is torch.float32|differs from hidden)")],
    *[({name: arguments()[name].int()}, rf"{name} is .*[Ii]nt.*: want .*int64") for name in INDICES],
    *[({name: arguments()[name].double()}, rf"{name} is .*: want .*int64") for name in INDICES],
    *[({"logit_scale": x}, r"logit_scale is .*: want 1e-06 to 1e\+06") for x in (0.0, -1.0, NAN, INF, 1e-300, 1e300)],
    *[({"soft_cap": x}, r"soft_cap is .*: want 1e-06 to 1e\+06") for x in (-1.0, NAN, INF, 1e-300, 1e300)],
    *[
        ({name: x}, rf"{name} is {x}: want \D*0 to 281474976710656")
        for name in ("num_sequences", "chunk_rows", "memory_budget")
        for x in (-1, 1 << 62)
    ],
]  # fmt: skip
RANGES: list[tuple[dict[str, Any], str]] = [
    (put("targets", (1,), 4), r"targets\[1\] is 4: want 0 to 3 \(rows of weight\)"),
    (put("targets", (2,), -1), r"targets\[2\] is -1: want 0 to 3"),
    (put("row_of_target", (0,), 3), r"row_of_target\[0\] is 3: want 0 to 2 \(rows of hidden\)"),
    (put("sequence_of_target", (2,), 1 << 62), r"sequence_of_target\[2\] is 4611686018427387904: want 0 to 1"),
    ({"num_sequences": 0}, r"sequence_of_target\[0\] is 0: want 0 to -1 \(num_sequences\)"),
    ({"targets": torch.tensor([7, -3, 9])}, r"targets\[0\] is 7"),  # the first one
    ({"weight": torch.zeros(0, 2), "bias": torch.zeros(0)}, r"targets\[0\] is 1: want 0 to -1"),
]
VALUES: list[tuple[dict[str, Any], str]] = [
    *[
        (put(name, place, value, dtype), rf"{name}\[{', '.join(map(str, place))}\] is -?{value}: want a finite number")
        for name, place in (("hidden", (1, 1)), ("weight", (2, 0)), ("bias", (3,)))
        for value in (NAN, INF)
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16)
    ],
    (put("hidden", (1, 0), -INF), r"hidden\[1, 0\] is -inf"),
    (put("hidden", (2, 0), NAN), r"hidden\[2, 0\] is nan"),  # a row without triples
    *[
        ({name: torch.full_like(arguments()[name], large, dtype=dtype) for name in FLOATS}, OVERFLOW)
        for large, dtype in ((3e38, torch.float32), (300.0, torch.float16))
    ],
]  # fmt: skip


@pytest.mark.parametrize("impl", ["cpp", "reference"])
@pytest.mark.parametrize(("changed", "message"), METADATA + RANGES + VALUES)
def test_refused(changed: dict[str, Any], message: str, impl: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        through_function(impl, **changed)


@pytest.mark.parametrize(("changed", "message"), METADATA + RANGES + VALUES)
def test_the_operator_itself_refuses(changed: dict[str, Any], message: str) -> None:
    for hidden, head in ((True, True), (False, False)):
        with torch.no_grad(), pytest.raises(RuntimeError, match=f"^sequence_logprob: {message}"):
            FORWARD(*arguments(**changed).values(), hidden, head)


@pytest.mark.parametrize(("changed", "message"), RANGES)
def test_validate_names_the_same(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        ops.sequence_logprob(**arguments(**changed), validate=True)


@pytest.mark.parametrize("impl", ["cpp", "reference"])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        *[({name: [1, 2, 0]}, f"{name} is a list: want a tensor") for name in INDICES],
        ({"hidden": None}, "hidden is a NoneType: want a tensor"),
        ({"bias": 0.5}, "bias is a float: want a tensor"),
        ({"weight": arguments()["weight"].to_sparse()}, "weight has layout torch.sparse_coo: want a dense"),
        # As a tensor, either would lose its gradient without a word.
        *[({x: torch.tensor(1.0, requires_grad=True)}, f"{x} is a tensor") for x in ("logit_scale", "soft_cap")],
        *[({x: 2.0}, f"{x} is a float: want ") for x in ("num_sequences", "chunk_rows", "memory_budget")],
        ({"num_sequences": torch.tensor(2)}, "num_sequences is a Tensor: want "),
        ({"num_sequences": True}, "num_sequences is a bool: want "),
        *[({x: [2]}, f"{x} is a list: want ") for x in ("num_sequences", "chunk_rows", "logit_scale", "soft_cap")],
        *[({x: None}, f"{x} is a NoneType: want ") for x in ("num_sequences", "chunk_rows", "logit_scale", "soft_cap")],
        *[({x: arguments()[x].to("meta")}, f"{x} is on meta, hidden is on cpu") for x in ("weight", "bias", *INDICES)],
    ],
)  # fmt: skip
def test_refused_by_the_function(changed: dict[str, Any], message: str, impl: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        through_function(impl, **changed)


def test_an_overflow_of_the_gradient_alone_is_named() -> None:
    weight = torch.full((4, 2), -60000.0).half()
    weight[1] = 60000.0
    with pytest.raises(UserError, match=r"the gradients of hidden\[0\] are not finite, .* overflows in 16 bits"):
        through_function("cpp", hidden=torch.zeros(3, 2).half().requires_grad_(), weight=weight, bias=None)


@pytest.mark.parametrize("impl", ["cpp", "reference"])
def test_a_bias_of_minus_infinity_leaves_a_token_out(impl: str) -> None:
    """The one value that is not finite and means something; as a target the token has no log-prob."""
    bias = arguments()["bias"].clone()
    bias[2] = -INF
    leaves = [arguments()[name].requires_grad_() for name in ("hidden", "weight")]
    given = arguments(hidden=leaves[0], weight=leaves[1], bias=bias)
    logps = ops.sequence_logprob(**given, impl=impl)
    keep = torch.tensor([0, 1, 3])
    fewer = arguments(weight=arguments()["weight"][keep], bias=bias[keep], targets=torch.tensor([1, 2, 0]))
    torch.testing.assert_close(logps.detach(), ops.sequence_logprob(**fewer))
    for x in torch.autograd.grad(logps.sum(), leaves):
        assert torch.isfinite(x).all()
    with pytest.raises(UserError, match=r"bias\[2\] is -inf"):
        through_function(impl, bias=bias, targets=torch.tensor([1, 2, 0]))


def test_implementations_that_cannot_run_here() -> None:
    with pytest.raises(UserError, match=r"impl is 'cuda', the tensors are on cpu: choose impl='cpp' or 'auto'"):
        through_function("cuda")
    with pytest.raises(UserError, match=r"impl is 'fast': known: auto, cpp, cuda, reference"):
        through_function("fast")
    meta = {name: x.to("meta") for name, x in arguments().items() if isinstance(x, Tensor)}
    for impl in ("auto", "cpp"):
        with pytest.raises(UserError, match="no operator is compiled for meta; choose impl='reference'"):
            through_function(impl, **meta)
    assert through_function("reference", **meta).shape == (2,)


def test_a_meta_tensor_among_others_does_not_give_memory_without_contents() -> None:
    for name in (*FLOATS[1:], *INDICES):
        given = arguments(**{name: arguments()[name].to("meta")})
        with torch.no_grad(), pytest.raises(UserError, match=f"{name} is on meta, hidden is on cpu"):
            FORWARD(*given.values(), True, True)


def test_without_the_library_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implementation, "_PROBLEM", "the compiled operators are not built")
    with pytest.raises(UserError, match=r"not built; or choose impl='reference'"):
        through_function("auto")
    assert torch.isfinite(through_function("reference")).all()


BACK = ("grad", "hidden", "weight", "bias", *INDICES, "u", "kept", "begin", "order", "slope", "logp", "lse")


def backward_arguments(budget: int = 1 << 20, soft_cap: float = 0.0, **changed: Any) -> dict[str, Any]:
    """A right call of the backward operator, but for what is changed."""
    given = arguments(memory_budget=budget, soft_cap=soft_cap)
    with torch.no_grad():
        saved = FORWARD(*given.values(), True, True)[1:]
    tensors = dict(zip(BACK, (torch.ones(2), *list(given.values())[:6], *saved), strict=True))
    flags = {"logit_scale": 1.0, "soft_cap": soft_cap, "chunk_rows": 0, "hidden": True, "weight": True, "bias": True}
    good = tensors | {f"{name} wanted" if name in tensors else name: x for name, x in flags.items()}
    assert changed.keys() <= good.keys()
    return {**good, **changed}


def refuse_backward(message: str, **changed: Any) -> None:
    with torch.no_grad(), pytest.raises(RuntimeError, match=f"^sequence_logprob: {message}"):
        BACKWARD(*backward_arguments(**changed).values())


@pytest.mark.parametrize("budget", [0, 1 << 20])
@pytest.mark.parametrize("soft_cap", [0.0, 2.0])
def test_backward_called_by_hand_is_right_or_refused(soft_cap: float, budget: int) -> None:
    good = backward_arguments(budget, soft_cap)
    with torch.no_grad():
        assert [x.shape for x in BACKWARD(*good.values())] == [(3, 2), (4, 2), (4,)]
    used = {"grad", "hidden", "weight", *INDICES, "begin", "order", "u"}
    used |= {"slope"} if soft_cap else set()
    used |= {"kept"} if budget else {"logp", "lse"}
    for name in sorted(used):
        x = good[name]
        # Without any elements, `kept` says that it is to be computed again, for which then logp and lse lack.
        nonsense = [x.to(torch.int32), x.unsqueeze(0), x[:0], torch.cat([x, x]), x.to("meta")]
        for other in nonsense[: None if name != "grad" else 3]:  # a larger grad is one of more sequences
            with torch.no_grad(), pytest.raises((RuntimeError, UserError)):
                BACKWARD(*(good | {name: other}).values())
    for name in set(BACK) - {"hidden"}:
        with torch.no_grad(), pytest.raises(UserError, match="a tensor is on meta, hidden is on cpu"):
            BACKWARD(*(good | {name: good[name].to("meta")}).values())


def test_backward_looks_at_every_index() -> None:
    far = 1 << 40
    refuse_backward(r"targets\[1\] is 4: want 0 to 3", targets=torch.tensor([1, 4, 0]))
    refuse_backward(r"row_of_target\[2\] is -1", row_of_target=torch.tensor([0, 1, -1]))
    refuse_backward(r"sequence_of_target\[0\] is 2: want 0 to 1", sequence_of_target=torch.tensor([2, 0, 1]))
    refuse_backward(r"sequence_of_target\[2\] is 1: want 0 to 0", grad=torch.ones(1))
    segments = "backward: begin and order are not what the forward pass returned"
    for begin in ([0, 1, 3, far], [0, far, 3, 3], [-1, 1, 3, 3], [0, 2, 1, 3], [1, 1, 3, 3], [0, 1, 2, 2]):
        refuse_backward(segments, begin=torch.tensor(begin))
    for order in ([0, 1, 3], [0, -1, 2], [far, 1, 2]):
        refuse_backward(segments, order=torch.tensor(order))


def test_backward_checks_shapes_dtypes_and_numbers() -> None:
    refuse_backward(r"backward: grad has 2 dimensions", grad=torch.ones(2, 1))
    refuse_backward(r"backward: grad is not what .*: other dtype", grad=torch.ones(2).double())
    refuse_backward(r"backward: u has another shape", u=torch.zeros(3, 3))
    refuse_backward(r"backward: u is not what .*strides", u=torch.zeros(1, 1).expand(3, 2))
    refuse_backward(r"backward: kept has another shape", kept=torch.zeros(3, 4))
    refuse_backward(r"backward: lse has another shape", budget=0, lse=torch.zeros(2))
    refuse_backward(r"backward: slope has another shape", soft_cap=2.0, slope=torch.zeros(0))
    refuse_backward(r"weight has size 3", weight=torch.zeros(4, 3))
    refuse_backward(r"bias differs from hidden in dtype", bias=torch.zeros(4).double())
    refuse_backward(r"logit_scale is nan", logit_scale=NAN)
    refuse_backward(r"chunk_rows is -1", chunk_rows=-1)
