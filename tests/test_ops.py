"""The compiled preference loss against the readable reference: dtypes, forms, odd sizes, CPU levels."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rosepo_bench.engine import library, ops
from rosepo_bench.errors import UserError
from rosepo_bench.preference import losses
from rosepo_bench.preference.arguments import MAX_EPSILON
from rosepo_bench.seeds import derive

FORMS = sorted(MAX_EPSILON)
DTYPES = [torch.float32, torch.float64]


def draw(pairs: int, form: str, dtype: torch.dtype, *parts: str) -> tuple[list[Tensor], Tensor]:
    """Log-probs of a plausible size and an ε over the form's whole range, ends included."""
    generator = torch.Generator().manual_seed(derive(0, "test_ops", form, str(dtype), pairs, *parts))
    logps = [-40 * torch.rand(pairs, generator=generator, dtype=torch.float64) for _ in range(4)]
    epsilon = torch.rand(pairs, generator=generator, dtype=torch.float64) * 1.2 - 0.1
    return [x.to(dtype) for x in logps], (epsilon.clamp(0, 1) * MAX_EPSILON[form]).to(dtype)


def loss_and_gradients(
    implementation: str, logps: list[Tensor], epsilon: Tensor, beta: float, form: str
) -> tuple[Tensor, Tensor, Tensor]:
    chosen, rejected = (x.detach().clone().requires_grad_() for x in logps[:2])
    loss = ops.preference_loss(chosen, rejected, *logps[2:], epsilon=epsilon, beta=beta, form=form, impl=implementation)
    weights = torch.linspace(-1, 2, len(loss), dtype=loss.dtype, device=loss.device)
    grad_chosen, grad_rejected = torch.autograd.grad(loss, [chosen, rejected], weights)
    return loss.detach(), grad_chosen, grad_rejected


def assert_equal_to_reference(
    implementation: str, logps: list[Tensor], epsilon: Tensor, beta: float, form: str
) -> None:
    exact = [x.double() for x in logps]
    wanted = loss_and_gradients("reference", exact, epsilon.double(), beta, form)
    found = loss_and_gradients(implementation, logps, epsilon, beta, form)
    # Rounding of Δ, then of a formula whose weights reach 10 in the robust form.
    rounding = torch.finfo(logps[0].dtype).eps * (1 + beta * sum(x.abs() for x in exact))
    bound = 4 * rounding * (10 if form == "robust" else 1) * (1 + beta)
    for name, x, y in zip(("loss", "chosen", "rejected"), found, wanted, strict=True):
        assert x.dtype == logps[0].dtype
        assert ((x.double() - y).abs() <= bound).all(), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pairs", [0, 1, 7, 4097])
@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
def test_equal_to_reference(pairs: int, form: str, dtype: torch.dtype, beta: float) -> None:
    logps, epsilon = draw(pairs, form, dtype)
    assert_equal_to_reference("cpp", logps, epsilon, beta, form)


def test_strided_inputs_and_a_number_for_epsilon() -> None:
    logps, _ = draw(50, "cdpo", torch.float64, "strided")
    table = torch.stack(logps, dim=1)
    columns = [table[:, k] for k in range(4)]
    assert not columns[0].is_contiguous()
    found = ops.preference_loss(*columns, epsilon=0.2, beta=0.5)
    wanted = losses.preference_loss(*logps, epsilon=torch.full((50,), 0.2, dtype=torch.float64), beta=0.5)
    torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("z", [-1e4, -90.0, -1e-3, 0.0, 1e-3, 90.0, 1e4])
@pytest.mark.parametrize(
    ("form", "epsilon"),
    [(form, x) for form in FORMS for x in (0.0, 1e-7, 0.45, 0.5, 1.0) if x <= MAX_EPSILON[form]],
)
def test_extreme_margins(epsilon: float, z: float, form: str, dtype: torch.dtype) -> None:
    chosen = torch.tensor([z / 2], dtype=dtype, requires_grad=True)
    zero, smooth = torch.zeros(1, dtype=dtype), torch.tensor([epsilon], dtype=dtype)
    loss = ops.preference_loss(chosen, zero, zero, zero, epsilon=smooth, beta=2.0, form=form)
    loss.backward()
    # softplus and σ in a form of their own, in float64.
    t, eps = torch.tensor(z, dtype=torch.float64), smooth.double()
    wrong, right = torch.logaddexp(-t, torch.zeros_like(t)), torch.logaddexp(t, torch.zeros_like(t))
    keep, flip = ((1 - eps), eps) if form == "cdpo" else ((1 - eps) / (1 - 2 * eps), -eps / (1 - 2 * eps))
    tolerance = 30 * torch.finfo(dtype).eps
    torch.testing.assert_close(loss.detach().double(), keep * wrong + flip * right, rtol=tolerance, atol=tolerance)
    slope = 2 * (flip * torch.sigmoid(t) - keep * torch.sigmoid(-t))
    assert chosen.grad is not None
    torch.testing.assert_close(chosen.grad.double(), slope, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("implementation", ["cpp", "reference"])
@pytest.mark.parametrize("form", FORMS)
def test_epsilon_zero_is_dpo(form: str, implementation: str) -> None:
    logps, _ = draw(99, form, torch.float64, "dpo")
    delta = (logps[0] - logps[2]) - (logps[1] - logps[3])
    found = ops.preference_loss(*logps, epsilon=0.0, beta=0.3, form=form, impl=implementation)
    torch.testing.assert_close(found, -logsigmoid(0.3 * delta), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("implementation", ["cpp", "reference"])
def test_epsilon_one_swaps_the_pair(implementation: str) -> None:
    chosen, rejected, *reference = draw(99, "cdpo", torch.float64, "swap")[0]
    found = ops.preference_loss(chosen, rejected, *reference, epsilon=1.0, beta=0.3, impl=implementation)
    swapped = ops.preference_loss(
        rejected, chosen, reference[1], reference[0], epsilon=0.0, beta=0.3, impl=implementation
    )
    torch.testing.assert_close(found, swapped, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("form", FORMS)
def test_gradcheck_and_opcheck(form: str) -> None:
    logps, epsilon = draw(5, form, torch.float64, "gradcheck")
    chosen, rejected = ((x / 10).requires_grad_() for x in logps[:2])
    reference = [x / 10 for x in logps[2:]]

    def loss(c: Tensor, r: Tensor) -> Tensor:
        return ops.preference_loss(c, r, *reference, epsilon=epsilon, beta=0.7, form=form)

    assert torch.autograd.gradcheck(loss, (chosen, rejected))
    operator = torch.ops.rosepo.preference_loss.default
    results = torch.library.opcheck(operator, (chosen, rejected, *reference, epsilon, 0.7, form))
    assert set(results.values()) == {"SUCCESS"}


def test_compiles_without_a_graph_break() -> None:
    logps, epsilon = draw(33, "cdpo", torch.float32, "compile")

    def step(chosen: Tensor, rejected: Tensor) -> Tensor:
        scaled = ops.preference_loss(chosen * 2, rejected, *logps[2:], epsilon=epsilon, beta=0.1)
        return (
            scaled.mean()
            + ops.preference_loss(chosen, rejected, *logps[2:], epsilon=0.1, beta=0.1, impl="reference").mean()
        )

    results = []
    for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        chosen, rejected = (x.clone().requires_grad_() for x in logps[:2])
        loss = function(chosen, rejected)
        results.append((loss.detach(), *torch.autograd.grad(loss, [chosen, rejected])))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-7)


def test_second_derivative_is_refused_and_the_reference_has_it() -> None:
    logps, epsilon = draw(4, "cdpo", torch.float64, "second")
    chosen = logps[0].requires_grad_()
    loss = ops.preference_loss(chosen, *logps[1:], epsilon=epsilon, beta=0.1)
    with pytest.raises(UserError, match=r"no second derivative.*impl='reference'"):
        torch.autograd.grad(loss.sum(), chosen, create_graph=True)
    loss = ops.preference_loss(chosen, *logps[1:], epsilon=epsilon, beta=0.1, impl="reference")
    (first,) = torch.autograd.grad(loss.sum(), chosen, create_graph=True)
    assert torch.autograd.grad(first.sum(), chosen)[0].abs().min() > 0


def test_the_first_bad_pair_is_named_whatever_the_threads() -> None:
    logps, epsilon = draw(20_000, "cdpo", torch.float32, "threads")
    logps[1][[19_999, 12_345, 7_001]] = float("nan")
    with pytest.raises(UserError, match=r"rejected\[7001\] is (-?)nan: want a finite"):
        ops.preference_loss(*logps, epsilon=epsilon, beta=0.1)


PROBE = """
import torch
from rosepo_bench.engine import library, ops
state = library.info()
print(state["isa"], "|", state["state"])
g = torch.Generator().manual_seed(1)
x = [40 * torch.rand(4097, generator=g, dtype=torch.float64) for _ in range(4)]
e = torch.rand(4097, generator=g, dtype=torch.float64)
for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
    y = [t.to(dtype) for t in x]
    found = ops.preference_loss(*y, epsilon=e.to(dtype), beta=0.5).double()
    wanted = ops.preference_loss(*x, epsilon=e, beta=0.5, impl="reference")
    assert (found - wanted).abs().max() < bound, dtype
"""


def probe(level: str | None) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "ROSEPO_CPU_ISA"}
    env |= {} if level is None else {"ROSEPO_CPU_ISA": level}
    return subprocess.run([sys.executable, "-c", PROBE], env=env, capture_output=True, text=True)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the levels are x86-64's")
def test_every_level_of_the_cpu() -> None:
    best = probe(None)
    assert best.returncode == 0, best.stderr
    name = best.stdout.partition(" ")[0]
    for level in ("v2", "v3", "v4"):
        result = probe(level)
        if level <= name:
            assert result.returncode == 0, result.stderr
            assert result.stdout == f"{level} | loaded\n"
        else:
            assert f"this CPU supports up to {name}" in result.stdout
            assert "UserError" in result.stderr


def test_an_unknown_level_is_refused() -> None:
    result = probe("v5")
    assert result.returncode != 0
    assert "ROSEPO_CPU_ISA=v5" in result.stdout
    assert "UserError: impl is 'auto': rosepo: ROSEPO_CPU_ISA=v5" in result.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.skipif(library.info()["cuda"] == "none", reason="the library is built without CUDA")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pairs", [0, 1, 7, 4097])
def test_cuda_equal_to_reference(pairs: int, form: str, dtype: torch.dtype) -> None:
    logps, epsilon = draw(pairs, form, dtype, "cuda")
    on_device = [x.cuda() for x in logps]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        assert_equal_to_reference("cuda", on_device, epsilon.cuda(), 0.5, form)
    if pairs:
        bad = torch.full_like(on_device[0], 0.46 if form == "robust" else 1.1)
        assert ops.preference_loss(*on_device, epsilon=bad, beta=0.5, form=form).isnan().all()
        with pytest.raises(UserError, match=r"epsilon\[0\]"):
            ops.preference_loss(*on_device, epsilon=bad, beta=0.5, form=form, validate=True)
