"""Every loss, implementation and dtype against its equation in extended precision, and at extreme values."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from typing import Any

import loss_errors
import numpy as np
import pytest
import torch
from loss_errors import DTYPES, SIZES, draw, evaluate, exact, exact_loss, implementations, worst
from torch import Tensor

from rosepo_bench.engine.ops import library
from rosepo_bench.losses.formulas import LOSSES

GRID = [(loss, pairs, k) for loss in LOSSES for pairs, k in SIZES if k == 1 or LOSSES[loss].many]
# In ulp of the value, or of 1 where it is below. The compiled ones compute in float64; what float32 tensors then
# lose is the last rounding. The others lose the rounding of log-probs up to 40, times β up to 3.
BOUNDS = {
    torch.float32: {"cpp": 0.51, "cuda": 0.51, "reference": 200},
    torch.float64: dict.fromkeys(["cpp", "cuda", "reference"], 200),
}


def test_every_loss_has_an_equation_of_its_own_here() -> None:
    assert set(loss_errors.EXACT) == set(LOSSES)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("loss", "pairs", "rejected"), GRID)
@pytest.mark.parametrize("implementation", implementations())
def test_equal_to_the_equation(implementation: str, loss: str, pairs: int, rejected: int, dtype: torch.dtype) -> None:
    given = draw(loss, pairs, rejected, dtype)
    found = evaluate(given, implementation)
    assert [x.dtype for x in found[:3]] == [dtype] * 3
    assert [list(x.shape) for x in found[:3]] == [[pairs], [pairs], [pairs, rejected]]
    errors = worst(given, implementation)
    assert max(errors.loss, errors.gradient) <= BOUNDS[dtype][implementation], errors


@pytest.mark.parametrize("implementation", implementations())
@pytest.mark.parametrize("loss", LOSSES)
def test_a_vector_of_rejected_is_a_table_of_one_column(loss: str, implementation: str) -> None:
    given = draw(loss, 9, 1, torch.float64)
    vectors = {name: x[:, 0] if isinstance(x, Tensor) and x.dim() == 2 else x for name, x in given.items()}
    for x, y in zip(evaluate(given, implementation)[:3], evaluate(vectors, implementation)[:3], strict=True):
        assert torch.equal(x.flatten(), y)


@pytest.mark.parametrize("implementation", implementations())
def test_strides_and_numbers_for_all_pairs(implementation: str) -> None:
    given = draw("rosepo", 50, 3, torch.float64)
    given |= {"epsilon": given["epsilon"][:, :1].expand(50, 3), "beta": torch.tensor(0.7, dtype=torch.float64)}
    spread = dict(given)
    for name in ("chosen", "reference_chosen", "weight"):
        spread[name] = torch.stack([given[name], torch.full_like(given[name], torch.nan)], dim=1)[:, 0]
    for name in ("rejected", "reference_rejected"):
        spread[name] = given[name].t().contiguous().t()
        assert not spread[name].is_contiguous()
    spread |= {"epsilon": given["epsilon"][:, 0], "beta": 0.7}
    for x, y in zip(evaluate(spread, implementation)[:3], evaluate(given, implementation)[:3], strict=True):
        torch.testing.assert_close(x, y, rtol=1e-13, atol=1e-13)
    alike = given | {"epsilon": torch.full((50, 3), 0.2, dtype=torch.float64)}
    assert torch.equal(evaluate(given | {"epsilon": 0.2}, implementation)[0], evaluate(alike, implementation)[0])


def extreme(loss: str, z: float, epsilon: float, dtype: torch.dtype) -> dict[str, Any]:
    """One pair whose β Δ is z, with whatever else ``loss`` takes."""
    row = LOSSES[loss]
    given = {name: x for name, x in draw(loss, 1, 1, dtype).items() if name in ("loss", "gamma", "sft_weight")}
    ones = {name: torch.ones(1, dtype=torch.int64) for name in ("chosen_tokens", "rejected_tokens")}
    zeros = {name: torch.zeros(1, dtype=dtype) for name in ("reference_chosen", "reference_rejected")}
    more = {**ones, **zeros, "kl": 0.0, "epsilon": torch.full((1,), epsilon, dtype=dtype)}
    given |= {name: x for name, x in more.items() if name in row.needs | row.takes}
    low = -1e-3 if row.odds else 0.0  # odds want log-probs below 0
    given["chosen"] = torch.tensor([z / 2 if z < 0 else low], dtype=dtype)
    given["rejected"] = torch.tensor([-z / 2 if z > 0 else low], dtype=dtype)
    return given | {"beta": 2.0}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("z", [-1e4, -90.0, -1e-3, 0.0, 1e-3, 90.0, 1e4])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("implementation", implementations())
def test_extreme_margins(implementation: str, loss: str, z: float, dtype: torch.dtype) -> None:
    row = LOSSES[loss]
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    for epsilon in (0.0, 1e-7, 0.45, 0.5, 1.0):
        if epsilon > (row.max_epsilon if "epsilon" in row.takes else 0):
            continue
        given = extreme(loss, z, epsilon, dtype)
        wanted = exact(given | {"kl": 0.0, "desirable": 1.0, "undesirable": 1.0})
        for x, y in zip(evaluate(given, implementation)[:3], wanted, strict=True):
            assert x.isfinite().all()
            np.testing.assert_allclose(x.double().numpy(), y.astype(float), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation", implementations())
def test_odds_of_nearly_certain_responses(implementation: str, dtype: torch.dtype) -> None:
    certain = torch.tensor([-1e-30, -1e-30, -1e-12, -60.0, -1e4], dtype=dtype)
    other = torch.tensor([-1e-30, -30.0, -1e-6, -1e-30, -1e-7], dtype=dtype)
    given = draw("orpo", 5, 1, dtype) | {"chosen": certain, "rejected": other.unsqueeze(1), "beta": 0.5, "epsilon": 0.0}
    losses, slopes, others, _ = evaluate(given, implementation)
    wanted = exact(given)
    rtol = 30 * torch.finfo(dtype).eps
    np.testing.assert_allclose(losses.double().numpy(), wanted[0].astype(float), rtol=rtol)
    # With x the log-odds of the chosen minus the rejected's: d/dl_w = w (-1 - β σ(-x) / (1 - p_w)) / |w|.
    m, n = (
        given[a].double().flatten() / given[b].flatten()
        for a, b in (("chosen", "chosen_tokens"), ("rejected", "rejected_tokens"))
    )
    odds = [x - torch.log(-torch.expm1(x)) for x in (m, n)]
    push = 0.5 * torch.sigmoid(odds[1] - odds[0])
    by_chosen = given["weight"] * (-1 + push / torch.expm1(m)) / given["chosen_tokens"]
    by_rejected = -given["weight"] * push / torch.expm1(n) / given["rejected_tokens"].flatten()
    torch.testing.assert_close(slopes.double(), by_chosen, rtol=10 * rtol, atol=1e-37)
    torch.testing.assert_close(others.double().flatten(), by_rejected, rtol=10 * rtol, atol=1e-37)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("zero", [0.0, -5e-324])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation", implementations())
def test_odds_of_a_certain_chosen_response(
    implementation: str, dtype: torch.dtype, zero: float, weighted: bool
) -> None:
    """At log-prob 0 of the chosen one stands the limit of what is below: a loss of 0 and derivatives in closed form,
    which the exact equation at -1e-30 to -1e-300 confirms."""
    given = draw("orpo", 6, 1, torch.float64) | {"epsilon": torch.zeros(6, 1, dtype=torch.float64)}
    given["rejected"] = torch.tensor([[-1e-12], [-0.3], [-5.0], [-40.0], [-700.0], [-1e4]], dtype=torch.float64)
    if not weighted:
        del given["weight"]
    m = given["rejected"] / given["rejected_tokens"]
    odds = (torch.exp(m) / -torch.expm1(m))[:, 0]
    slope = given.get("weight", 1) * (-1 - given["beta"] * odds) / given["chosen_tokens"]
    for near in (-1e-30, -1e-100, -1e-300):
        approached = exact(given | {"chosen": torch.full((6,), near, dtype=torch.float64)})
        np.testing.assert_allclose(approached[0].astype(float), (near * slope).numpy(), rtol=1e-9)
        np.testing.assert_allclose(approached[1].astype(float), slope.numpy(), rtol=1e-9)
    moved = {name: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for name, x in given.items()}
    losses, by_chosen, by_rejected, means = evaluate(
        moved | {"chosen": torch.full((6,), zero, dtype=dtype)}, implementation
    )
    assert losses.tolist() == [0.0] * 6
    assert by_rejected.flatten().tolist() == [0.0] * 6
    torch.testing.assert_close(by_chosen.double(), slope, rtol=100 * torch.finfo(dtype).eps, atol=0)
    assert means.accuracy == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation", implementations())
def test_a_certain_response_changes_no_other_pair(implementation: str, dtype: torch.dtype) -> None:
    """Nor do others with extreme odds, or another ε, change it."""
    given = draw("orpo", 5, 1, dtype)
    given["chosen"] = torch.tensor([0.0, -1e-30, -1e4, 0.0, -0.2], dtype=dtype)
    given["rejected"] = torch.tensor([[-2.0], [-1e4], [-1e-30], [-1e4], [-0.1]], dtype=dtype)
    given["epsilon"] = torch.tensor([[0.0], [0.3], [0.0], [0.0], [1.0]], dtype=dtype)
    together = evaluate(given, implementation)
    for k in range(5):
        one = {name: x[k : k + 1] if isinstance(x, Tensor) else x for name, x in given.items()}
        alone = evaluate(one, implementation)
        for x, y in zip(together[:3], alone[:3], strict=True):
            assert x[k].isfinite().all()
            torch.testing.assert_close(x[k : k + 1], y, rtol=0, atol=0)


@pytest.mark.parametrize("implementation", implementations())
def test_smoothed_odds_count_however_near_to_certain(implementation: str) -> None:
    given = draw("orpo", 1, 1, torch.float64) | {"chosen_tokens": torch.tensor([2]), "epsilon": 0.3}
    given["chosen"] = torch.tensor([-2.3e-308], dtype=torch.float64)  # by token it is no longer a normal number
    wanted = exact_loss(given, *(given[name].numpy().astype(np.longdouble) for name in ("chosen", "rejected")))
    np.testing.assert_allclose(evaluate(given, implementation)[0].numpy(), wanted.astype(float), rtol=1e-12)


@pytest.mark.parametrize("implementation", implementations())
def test_many_rejected_at_extreme_margins(implementation: str) -> None:
    given = draw("rosepo", 4, 64, torch.float64)
    given["rejected"][0] = 5e3
    given["rejected"][1, ::2] = -5e3
    given["chosen"][2] = 5e3
    given["rejected"][3, 7] = 5e3
    given["beta"] = 2.0
    for x, y in zip(evaluate(given, implementation)[:3], exact(given), strict=True):
        assert x.isfinite().all()
        np.testing.assert_allclose(x.numpy(), y.astype(float), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("implementation", implementations())
def test_statistics(implementation: str) -> None:
    given = draw("rosepo", 5003, 3, torch.float64)
    given["chosen"] += 15
    found = evaluate(given, implementation)[3]
    chosen = given["chosen"] - given["reference_chosen"]
    rejected = given["rejected"] - given["reference_rejected"]
    assert all(x.dtype == torch.float64 and x.dim() == 0 and not x.requires_grad for x in found)
    margin = (given["beta"] * (chosen - rejected.mean(dim=1))).mean()
    torch.testing.assert_close(found.margin, margin, rtol=1e-12, atol=0)
    assert found.accuracy == (chosen > rejected.amax(dim=1)).sum().double() / 5003
    assert 0.1 < found.accuracy < 0.9
    torch.testing.assert_close(found.epsilon, given["epsilon"].mean(), rtol=1e-12, atol=0)
    assert [float(x) for x in evaluate(draw("dpo", 0, 1, torch.float32), implementation)[3]] == [0.0, 0.0, 0.0]
    by_token = draw("simpo", 1, 1, torch.float64)
    gap = by_token["chosen"] / by_token["chosen_tokens"] - by_token["rejected"][0] / by_token["rejected_tokens"][0]
    torch.testing.assert_close(evaluate(by_token, implementation)[3].margin, (by_token["beta"] * gap)[0])


def test_nothing_depends_on_the_number_of_threads() -> None:
    given = draw("rosepo", 20_000, 2, torch.float32)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            results.append(evaluate(given, "cpp"))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for x, y in zip((*results[0][:3], *results[0][3]), (*other[:3], *other[3]), strict=True):
            assert torch.equal(x, y)


PROBE = """
import sys
import torch
from rosepo_bench.engine.ops import library
state = library.info()
print(state["isa"], "|", state["state"])
sys.path.insert(0, sys.argv[1])
from loss_errors import LOSSES, draw, worst
for loss, row in LOSSES.items():
    for dtype, bound in ((torch.float32, 0.51), (torch.float64, 200)):
        errors = worst(draw(loss, 301, 3 if row.many else 1, dtype), "cpp")
        assert max(errors.loss, errors.gradient) <= bound, (loss, errors)
"""


def probe(level: str | None) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "ROSEPO_CPU_ISA"}
    env |= {} if level is None else {"ROSEPO_CPU_ISA": level}
    command = [sys.executable, "-c", PROBE, os.path.dirname(__file__)]
    return subprocess.run(command, env=env, capture_output=True, text=True)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the levels are x86-64's")
def test_every_level_of_the_cpu() -> None:
    state = probe(None) if "ROSEPO_CPU_ISA" in os.environ else None
    best = state.stdout.partition(" ")[0] if state else str(library.info()["isa"])
    for level in ("v2", "v3", "v4"):
        if level == library.info()["isa"]:
            continue  # the one that all other tests run
        result = probe(level)
        if level <= best:
            assert result.returncode == 0, result.stderr
            assert result.stdout == f"{level} | loaded\n"
        else:
            assert f"this CPU supports up to {best}" in result.stdout
            assert "UserError" in result.stderr


def test_an_unknown_level_is_refused() -> None:
    result = probe("v5")
    assert result.returncode != 0
    assert "ROSEPO_CPU_ISA=v5" in result.stdout
    assert "UserError: impl is 'cpp': rosepo: ROSEPO_CPU_ISA=v5" in result.stderr
