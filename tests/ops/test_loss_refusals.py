"""What the preference losses refuse: by the argument's name, the same in every implementation and in the operator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_errors import draw
from test_loss_torch import schema
from torch import Tensor

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine import ops
from rosepo_bench.engine.ops import implementation
from rosepo_bench.losses.formulas import LOSSES

FLOATS = ("chosen", "rejected", "reference_chosen", "reference_rejected", "epsilon", "beta", "weight", "kl")
COUNTS = ("chosen_tokens", "rejected_tokens")
NUMBERS = {"gamma": 0.5, "sft_weight": 0.5, "desirable": 0.5, "undesirable": 0.5}
nan, inf = float("nan"), float("inf")


def user_of(name: str) -> str:
    """A loss that takes the argument."""
    always = ("chosen", "rejected", "beta", "weight")
    return next(loss for loss, row in LOSSES.items() if name in (*always, *row.needs, *row.takes))


def arguments(loss: str, changed: dict[str, Any]) -> dict[str, Any]:
    return draw(loss, 3, 1, torch.float32, "refusals") | changed


def like(name: str, *numbers: float) -> Tensor:
    column = torch.tensor(numbers, dtype=torch.int64 if name in COUNTS else torch.float32)
    return column.unsqueeze(1) if name.startswith(("rejected", "reference_rejected")) else column


Case = tuple[str, dict[str, Any], str]


def unused() -> list[Case]:
    """Every argument that a loss does not use, and every one that it lacks."""
    some: dict[str, Any] = {name: like(name, 1, 1, 1) for name in (*FLOATS[2:5], *COUNTS)}
    some |= {"kl": torch.tensor(1.0), **NUMBERS}
    cases: list[Case] = []
    for loss, row in LOSSES.items():
        for name, value in some.items():
            if name not in row.needs | row.takes:
                cases.append((loss, {name: value}, rf"{name} is (given|[\d.]+): loss '{loss}' does not use it"))
        cases += [(loss, {name: None}, rf"{name} is missing: loss '{loss}' needs it") for name in sorted(row.needs)]
        if not row.many:
            message = rf"rejected has 2 columns: loss '{loss}' takes one"
            cases.append((loss, {"rejected": torch.zeros(3, 2)}, message))
    return cases


def metadata() -> list[Case]:
    cases: list[Case] = [
        ("cdpo", {"chosen": torch.zeros(3, 1)}, r"chosen has shape \[3, 1\]: want \[pairs\]"),
        ("cdpo", {"chosen": torch.tensor(1.0)}, r"chosen has shape \[\]: want \[pairs\]"),
        ("cdpo", {"rejected": torch.zeros(3, 0)}, r"rejected has shape \[3, 0\]: want .*\[pairs, 1 or more\]"),
        ("cdpo", {"rejected": torch.zeros(3, 1, 1)}, r"rejected has shape \[3, 1, 1\]: want .*\[pairs, 1 or more\]"),
        ("cdpo", {"rejected": torch.tensor(1.0)}, r"rejected has shape \[\]: want .*\[pairs, 1 or more\]"),
        ("cdpo", {"epsilon": torch.zeros(3, 2)}, r"epsilon has shape \[3, 2\]: want \[\] or \[3\] or \[3, 1\]"),
        ("cdpo", {"beta": torch.ones(3, 1)}, r"beta has shape \[3, 1\]: want \[\] or \[3\]$"),
        ("kto", {"kl": torch.zeros(3)}, r"kl has shape \[3\]: want \[\]$"),
        ("cdpo", {"loss": "cpdo"}, "loss is 'cpdo'"),
        ("cdpo", {"loss": "bco"}, "loss is 'bco'"),
    ]
    for name in (*FLOATS[1:], *COUNTS):
        loss = user_of(name)
        if name != "kl":
            cases.append((loss, {name: like(name, 1, 1, 1, 1)}, rf"{name} has shape \[4(, 1)?\]: want .*\[3"))
        other = torch.float32 if name in COUNTS else torch.float64
        wanted = r"torch.int64|Long" if name in COUNTS else r"torch.float32|Float"
        right = draw(loss, 3, 1, torch.float32)[name]
        cases.append((loss, {name: right.to(other)}, rf"{name} is .*: want ({wanted})"))
    for dtype in (torch.bfloat16, torch.float16, torch.int64):
        short = "Long|torch.int64" if dtype == torch.int64 else r"\S+16|Half"
        changed = {"chosen": torch.zeros(3, dtype=dtype)}
        cases.append(("cdpo", changed, rf"chosen is ({short}): want (torch.float32|Float) or (torch.float64|Double)"))
    for name in NUMBERS:
        for value in (-0.1, nan, inf):
            cases.append((user_of(name), {name: value}, rf"{name} is -?{abs(value)}: want a finite number, 0 or more"))
    return cases


def values() -> list[Case]:
    finite = "want a finite log-probability"
    cases: list[Case] = []
    for name in FLOATS[:4]:
        cases.append(("cdpo", {name: like(name, 0, 0, nan)}, rf"{name}\[2\] is -?nan: {finite}$"))
        cases.append(("dmpo", {name: like(name, 0, -inf, 0)}, rf"{name}\[1\] is -inf: {finite}$"))
    odds = "want a finite log-probability below 0, as its odds are compared"
    for name in FLOATS[:2]:
        cases.append(("orpo", {name: like(name, -1, 0, -2)}, rf"{name}\[1\] is 0: {odds}"))
        cases.append(("orpo", {name: like(name, -1, -1, nan)}, rf"{name}\[2\] is -?nan: {odds}"))
    for epsilon in (like("epsilon", 0, 0, 0), like("epsilon", 0, 0, 0).unsqueeze(1), torch.tensor(0.0), None):
        plain = {"epsilon": epsilon}
        cases.append(("orpo", plain | {"rejected": like("rejected", -1, 0, -2)}, rf"rejected\[1\] is 0: {odds}"))
        cases.append(("orpo", plain | {"chosen": like("chosen", 0, 0.5, -2)}, rf"chosen\[1\] is 0.5: {finite}$"))
        cases.append(("orpo", plain | {"chosen": like("chosen", 0, -inf, 0)}, rf"chosen\[1\] is -inf: {finite}$"))
    mixed = {"chosen": like("chosen", 0, 0, 0), "epsilon": like("epsilon", 0, 0, 0.1)}
    cases.append(("orpo", mixed, rf"chosen\[2\] is 0: {odds}"))
    cases.append(("orpo", mixed | {"epsilon": torch.tensor(0.1)}, rf"chosen\[0\] is 0: {odds}"))
    for name in COUNTS:
        cases.append(("simpo", {name: like(name, 4, 0, 2)}, rf"{name}\[1\] is 0: want a length of at least 1"))
        cases.append(("ipo", {name: like(name, 4, 2, -3)}, rf"{name}\[2\] is -3: want a length of at least 1"))
    for loss, row in LOSSES.items():
        if "epsilon" in row.takes:
            limit = "0 to 0.45 for loss 'robust'" if loss == "robust" else "0 to 1"
            for value in (-0.1, row.max_epsilon + 0.01, nan):
                shown = "-?nan" if value != value else f"{value:g}"
                cases.append(
                    (loss, {"epsilon": like("epsilon", 0, 0, value)}, rf"epsilon\[2\] is {shown}: want {limit}$")
                )
    for value in (0.0, -1.0, nan, inf):
        shown = "-?nan" if value != value else f"{value:g}"
        wanted = "want a finite number above 0"
        cases.append(("cdpo", {"beta": like("beta", 1, value, 1)}, rf"beta\[1\] is {shown}: {wanted}"))
        cases.append(("cdpo", {"beta": torch.tensor(value)}, rf"beta is {shown}: {wanted}"))
    for value in (-0.5, nan, inf):
        shown = "-?nan" if value != value else f"{value:g}"
        wanted = "want a finite number, 0 or more"
        cases.append(("cdpo", {"weight": like("weight", 1, value, 1)}, rf"weight\[1\] is {shown}: {wanted}"))
        cases.append(("kto", {"kl": torch.tensor(value)}, rf"kl is {shown}: {wanted}"))
    huge = {"chosen": like("chosen", 0, 3e38, 0), "beta": 10.0, "weight": torch.ones(3), "epsilon": 0.5}
    cases.append(("cdpo", huge, r"the result\[1\] is (-?inf|-?nan|1\.5e\+39): want a finite loss"))
    return cases


def numbers_for_all() -> list[Case]:
    cases: list[Case] = [
        ("robust", {"epsilon": x}, rf"epsilon is {x}: want 0 to 0.45 for") for x in (-0.01, 0.451, nan)
    ]
    cases += [("simpo", {"epsilon": x}, rf"epsilon is {x}: want 0 to 1") for x in (-0.01, 1.01, nan)]
    cases += [("cdpo", {"beta": x}, rf"beta is {x}: want a finite number above 0") for x in (0.0, -1.0, nan, inf)]
    cases += [("kto", {"kl": x}, rf"kl is {x}: want a finite number, 0 or more") for x in (-1.0, nan, inf)]
    cases += [(loss, {"epsilon": 0.1}, f"epsilon is 0.1: loss '{loss}' does not use it") for loss in ("dpo", "sdpo")]
    return cases


def kinds() -> list[Case]:
    return [
        ("cdpo", {"chosen": [1.0, 2.0, 3.0]}, "chosen is a list: want a tensor"),
        ("cdpo", {"reference_rejected": 0.5}, "reference_rejected is a float: want a tensor"),
        ("cdpo", {"weight": 2.0}, "weight is a float: want a tensor"),
        ("cdpo", {"rejected": torch.zeros(3).to_sparse()}, "rejected has layout torch.sparse_coo: want a dense tensor"),
        ("cdpo", {"epsilon": torch.zeros(3).to_sparse()}, "epsilon has layout torch.sparse_coo: want a dense tensor"),
        ("cdpo", {"beta": None}, "beta is None: want a number or a tensor"),
        ("cdpo", {"beta": "1"}, "beta is a str: want a number or a tensor"),
        ("simpo", {"gamma": torch.tensor(1.0)}, "gamma is a Tensor: want a number"),
        ("simpo", {"rejected_tokens": 3}, "rejected_tokens is a int: want a tensor"),
        ("cdpo", {"reference_chosen": torch.zeros(3, device="meta")}, "reference_chosen is on meta: want cpu"),
        ("cdpo", {"beta": torch.ones(3, device="meta")}, "beta is on meta: want cpu"),
    ]


@pytest.mark.parametrize("impl", ["cpp", "reference"])
@pytest.mark.parametrize(("loss", "changed", "message"), unused() + metadata() + values() + numbers_for_all() + kinds())
def test_refused(loss: str, changed: dict[str, Any], message: str, impl: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        ops.preference_loss(**arguments(loss, changed), impl=impl)


@pytest.mark.parametrize(("loss", "changed", "message"), unused() + metadata() + values())
def test_the_operator_itself_refuses(loss: str, changed: dict[str, Any], message: str) -> None:
    with torch.no_grad(), pytest.raises(RuntimeError, match=f"^preference_loss: {message}"):
        torch.ops.rosepo.preference_loss(*schema(arguments(loss, changed)))


@pytest.mark.parametrize("impl", ["cpp", "reference"])
def test_a_value_in_a_table_is_named_by_row_and_column(impl: str) -> None:
    for name, bad in (("rejected", nan), ("reference_rejected", inf), ("epsilon", 2.0)):
        given = draw("rosepo", 5000, 4, torch.float64)
        given[name][[4100, 2999, 3000], [3, 2, 1]] = bad
        with pytest.raises(UserError, match=rf"^{name}\[2999, 2\] is -?{bad:g}: want"):
            ops.preference_loss(**given, impl=impl)


@pytest.mark.parametrize("threads", [1, 4])
def test_the_first_bad_pair_is_named_whatever_the_threads(threads: int) -> None:
    given = draw("cdpo", 20_000, 1, torch.float32)
    given["rejected"][[19_999, 12_345, 7_001]] = nan
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with pytest.raises(UserError, match=r"^rejected\[7001\] is (-?)nan: want a finite"):
            ops.preference_loss(**given)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("impl", ["cpp", "reference"])
def test_the_limits_themselves_are_taken(impl: str) -> None:
    for loss, limit in (("robust", 0.45), ("rosepo", 1.0)):
        given = arguments(loss, {"epsilon": like("epsilon", limit, 0.0, limit)})
        assert ops.preference_loss(**given, impl=impl).isfinite().all()
        assert ops.preference_loss(**arguments(loss, {"epsilon": limit}), impl=impl).isfinite().all()


def test_implementations() -> None:
    assert ops.live("auto", "cpu") == ops.live("cpp", torch.device("cpu")) == "cpp"
    assert ops.live("reference", "meta") == "reference"
    with pytest.raises(UserError, match="impl is 'cuda', the tensors are on cpu: choose impl='cpp' or 'auto'"):
        ops.live("cuda", "cpu")
    with pytest.raises(UserError, match="impl is 'auto': no operator is compiled for meta"):
        ops.live("auto", "meta")
    with pytest.raises(UserError, match="impl is 'ccp': known: auto, cpp, cuda, reference"):
        ops.live("ccp", "cpu")


def test_without_the_library_auto_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implementation, "_PROBLEM", "the compiled operators are not built: run `make build`")
    with pytest.raises(UserError, match=r"not built: run `make build`; or choose impl='reference'"):
        ops.preference_loss(**arguments("dpo", {}))
    assert ops.preference_loss(**arguments("dpo", {}), impl="reference").shape == (3,)


def test_a_build_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implementation, "_HAS_CUDA", False)
    with pytest.raises(UserError, match="built without CUDA; rebuild it with ROSEPO_CUDA=1"):
        ops.live("auto", "cuda")


def test_both_tables_of_losses_agree() -> None:
    bits = ("reference", *COUNTS, "epsilon", "kl", "gamma", "sft_weight", "desirable")
    more = {"reference": ["reference_chosen", "reference_rejected"], "desirable": ["desirable", "undesirable"]}
    compiled = {}
    for line in torch.ops.rosepo.loss_table().splitlines():
        name, needs, takes, limit, many = line.split()
        sets = [
            frozenset(part for k, bit in enumerate(bits) if int(mask) >> k & 1 for part in more.get(bit, [bit]))
            for mask in (needs, takes)
        ]
        compiled[name] = (*sets, float(limit), many == "1")
    assert compiled == {
        name: (row.needs, row.takes, row.max_epsilon if "epsilon" in row.takes else 0.0, row.many)
        for name, row in LOSSES.items()
    }
