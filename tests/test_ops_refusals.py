"""What the preference loss refuses: by the argument's name, the same in every implementation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rosepo_bench.engine import implementation, ops
from rosepo_bench.errors import UserError

NAMES = ("chosen", "rejected", "reference_chosen", "reference_rejected", "epsilon")


def arguments(**changed: Any) -> dict[str, Any]:
    good: dict[str, Any] = {name: torch.full((3,), 0.25) for name in NAMES}
    return {**good, "beta": 0.1, "form": "cdpo", **changed}


def values(*numbers: float) -> Tensor:
    return torch.tensor(numbers)


METADATA: list[tuple[dict[str, Any], str]] = [
    *[({name: torch.zeros(4)}, rf"{name} has 4 pairs, chosen has 3") for name in NAMES[1:]],
    *[({name: torch.zeros(3, 1)}, rf"{name} has (shape \[3, 1\]|2 dimensions): want \[pairs\]") for name in NAMES],
    ({"chosen": torch.tensor(1.0)}, r"chosen has (shape \[\]|0 dimensions): want \[pairs\]"),
    *[({name: torch.zeros(3, dtype=torch.float64)}, rf"{name} .*") for name in NAMES[1:]],
    ({"chosen": torch.zeros(3, dtype=torch.bfloat16)}, r"chosen is .*16: want .*float32 or .*float64"),
    ({"beta": 0.0}, r"beta is 0.*: want a finite number above 0"),
    ({"beta": -1.0}, r"beta is -1.*: want a finite number above 0"),
    ({"beta": float("nan")}, r"beta is nan: want a finite number above 0"),
    ({"beta": float("inf")}, r"beta is inf: want a finite number above 0"),
    ({"form": "ipo"}, r"form is 'ipo'.*cdpo"),
]
VALUES: list[tuple[dict[str, Any], str]] = [
    *[({name: values(0, 0, float("nan"))}, rf"{name}\[2\] is -?nan: want a finite log-prob") for name in NAMES[:4]],
    ({"chosen": values(0, float("-inf"), 0)}, r"chosen\[1\] is -inf: want a finite log-prob"),
    ({"epsilon": values(0, 0, float("nan"))}, r"epsilon\[2\] is -?nan: want 0 to 1 for form 'cdpo'"),
    ({"epsilon": values(0, -0.1, 2)}, r"epsilon\[1\] is -0.1: want 0 to 1 for form 'cdpo'"),
    ({"epsilon": values(0, 1, 1.0001)}, r"epsilon\[2\] is 1.0001: want 0 to 1"),
    (
        {"epsilon": values(0.45, 0.46, 0), "form": "robust"},
        r"epsilon\[1\] is 0.46: want 0 to 0.45 for form 'robust'",
    ),
    ({"chosen": values(0, 3e38, 0), "beta": 10.0}, r"beta (\* margin\[1\]|times the margin of pair 1)"),
]


@pytest.mark.parametrize("implementation", ["cpp", "reference"])
@pytest.mark.parametrize(("changed", "message"), METADATA + VALUES)
def test_refused(changed: dict[str, Any], message: str, implementation: str) -> None:
    given = arguments(**changed)
    tensors = [given.pop(name) for name in NAMES[:4]]
    with pytest.raises(UserError, match=f"^{message}"):
        ops.preference_loss(*tensors, **given, impl=implementation)


@pytest.mark.parametrize(("changed", "message"), METADATA + VALUES)
def test_the_operator_itself_refuses(changed: dict[str, Any], message: str) -> None:
    with torch.no_grad(), pytest.raises(RuntimeError, match=f"^preference_loss: {message}"):
        torch.ops.rosepo.preference_loss(*arguments(**changed).values())


@pytest.mark.parametrize("implementation", ["cpp", "reference"])
@pytest.mark.parametrize("epsilon", [-0.01, 0.451, float("nan")])
def test_a_number_for_epsilon_is_refused(epsilon: float, implementation: str) -> None:
    given = arguments(epsilon=epsilon, form="robust")
    tensors = [given.pop(name) for name in NAMES[:4]]
    with pytest.raises(UserError, match=r"epsilon is .*: want 0 to 0.45 for form 'robust'"):
        ops.preference_loss(*tensors, **given, impl=implementation)


@pytest.mark.parametrize("name", NAMES[2:])
def test_a_gradient_for_anything_but_the_policy_is_refused(name: str) -> None:
    given = arguments(**{name: torch.full((3,), 0.25, requires_grad=True)})
    with pytest.raises(UserError, match=f"{name} requires a gradient"):
        torch.ops.rosepo.preference_loss(*given.values())
    tensors = [given.pop(key) for key in NAMES[:4]]
    for impl in ("cpp", "reference"):
        with pytest.raises(UserError, match=f"{name} requires a gradient"):
            ops.preference_loss(*tensors, **given, impl=impl)


def test_the_limit_itself_is_taken_in_float32() -> None:
    given = arguments(epsilon=values(0.45, 0.0, 0.45), form="robust")
    tensors = [given.pop(name) for name in NAMES[:4]]
    for impl in ("cpp", "reference"):
        assert ops.preference_loss(*tensors, **given, impl=impl).isfinite().all()


def test_implementations() -> None:
    assert ops.live("auto", "cpu") == ops.live("cpp", torch.device("cpu")) == "cpp"
    assert ops.live("reference", "meta") == "reference"
    with pytest.raises(UserError, match="impl is 'cuda', the tensors are on cpu: choose impl='cpp' or 'auto'"):
        ops.live("cuda", "cpu")
    with pytest.raises(UserError, match="impl is 'auto': no operator is compiled for meta"):
        ops.live("auto", "meta")
    with pytest.raises(UserError, match="impl is 'ccp': did you mean 'cpp'"):
        ops.live("ccp", "cpu")


def test_without_the_library_auto_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implementation, "_PROBLEM", "the compiled operators are not built: run `make build`")
    given = arguments()
    tensors = [given.pop(name) for name in NAMES[:4]]
    with pytest.raises(UserError, match=r"not built: run `make build`; or choose impl='reference'"):
        ops.preference_loss(*tensors, **given)
    assert ops.preference_loss(*tensors, **given, impl="reference").shape == (3,)


def test_a_build_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implementation, "_HAS_CUDA", False)
    with pytest.raises(UserError, match="built without CUDA; rebuild it with ROSEPO_CUDA=1"):
        ops.live("auto", "cuda")
