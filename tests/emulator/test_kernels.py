"""The CUDA kernels of sequence_logprob, emulated, against float64 and against themselves in other orders of threads."""

from __future__ import annotations

from pathlib import Path

import everything
import expected
import numpy as np
import pytest
from everything import Case, Result, make_case
from harness import DTYPES, Kernels, computed, decode, fault_names

from rosepo_bench.base import seeds

# One token; fewer than a wide load; widths that no wide load divides; rows of several warps.
SHAPES = ((1, 64), (7, 1), (33, 130), (1000, 3), (4099, 64))
ORDERS = 3


def units(dtype: str) -> tuple[float, float]:
    """Half the distance of numbers near 1, and of the smallest ones: the error of one rounding."""
    relative = {"float32": 2.0**-24, "float64": 2.0**-53, "bfloat16": 2.0**-8, "float16": 2.0**-11}[dtype]
    return relative, {"float16": 2.0**-25, "float64": 0.0}.get(dtype, 2.0**-127)


def assert_close(case: Case, actual: np.ndarray, wanted: np.ndarray, slack: np.ndarray | float) -> None:
    """Within one rounding to the dtype stored, and ``slack`` roundings relative to 1 of the dtype computed with."""
    relative, tiny = units(case.dtype)
    bound = np.abs(wanted) * relative * 1.001 + tiny + slack * units(computed(case.dtype))[0]
    error = np.abs(decode(actual, case.dtype if actual.dtype == np.uint16 else "float64") - wanted)
    assert np.all(error <= bound), f"{np.nanmax(error / bound)} times the bound"


@pytest.fixture(params=[(dtype, *shape, cap) for dtype in DTYPES for shape in SHAPES for cap in (0.0, 5.0)], ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    dtype, vocabulary, width, cap = request.param
    return make_case(dtype, vocabulary, width, cap, seeds.generator(0, "emulator", vocabulary, width))


def test_every_kernel(kernels: Kernels, csrc: Path, case: Case) -> None:
    results = [everything.run(kernels, case, order) for order in range(ORDERS)]
    for other in results[1:]:  # the order in which threads run changes no bit
        for name, array in results[0].arrays.items():
            np.testing.assert_array_equal(array, other.arrays[name], err_msg=name)
    result = results[0]
    check_indices(case, result, fault_names(csrc))
    check_rows(case, result)
    check_backward(case, result)


def check_indices(case: Case, result: Result, faults: list[str]) -> None:
    fine = expected.good(case)
    np.testing.assert_array_equal(result.row_key, np.where(fine, case.row, -1))
    inside = (case.sequence >= 0) & (case.sequence < case.sequences)
    np.testing.assert_array_equal(result.sequence_key, np.where(inside, case.sequence, -1))
    np.testing.assert_array_equal(result.clean_target, case.target.clip(0, case.vocabulary - 1))
    ranges = {
        "target": (case.target, case.vocabulary),
        "row_of_target": (case.row, case.rows),
        "sequence_of_target": (case.sequence, case.sequences),
    }
    flag = result.triples_flag[0]
    values, limit = ranges[faults[flag["fault"]]]
    assert values[flag["row"]] == flag["value"]
    assert not 0 <= flag["value"] < limit
    for row in range(case.rows):
        triples = expected.triples_of(result, row)
        np.testing.assert_array_equal(np.sort(triples), np.flatnonzero(fine & (case.row == row)))
        if len(triples):
            assert result.logp[triples[0]] == result.logp[triples].max(), "the likeliest one leads"


def check_rows(case: Case, result: Result) -> None:
    fine = expected.good(case)
    if case.half:
        logits, magnitude = expected.exact(case)
        assert np.all(np.abs(result.exact[fine] - logits) <= (case.width / 32 + 8) * magnitude * 2.0**-24)
    wanted = expected.rows(case, result)
    relative = units(computed(case.dtype))[0]
    bound = (20 + 4 * np.abs(wanted["logp"]) + 4 * case.cap) * relative
    assert np.all(np.abs(result.logp - wanted["logp"])[fine] <= bound[fine])
    assert np.all(result.logp[fine] <= 0)
    assert np.all(np.isnan(result.logp[~fine]))
    assert np.all(np.abs(result.lse - wanted["lse"]) <= (20 + 4 * np.abs(wanted["lse"]) + 4 * case.cap) * relative)
    if case.cap:
        assert np.all(np.abs(result.slope - wanted["slope"])[fine] <= 8 * case.scale * relative)
    p = wanted["p"]
    slack = p * (40 + 4 * np.abs(np.log(p + 1e-300)) + 8 * case.cap)
    for row in range(case.rows):
        slack[row, result.clean_target[expected.triples_of(result, row)[:1]]] = 40  # 1 - p: absolute
    assert_close(case, result.gradient[:, : case.vocabulary], wanted["gradient"], slack)
    assert result.rows_flag[0]["fault"] == 0
    totals = expected.sums(case, result)
    np.testing.assert_allclose(result.sums, totals, rtol=20 * relative)
    assert np.isnan(result.sums[[5, 6]]).all()
    assert result.sums[2] == 0


def check_backward(case: Case, result: Result) -> None:
    wanted = expected.row_gradients(case, result)
    c = np.abs(case.grad).max() * 50
    np.testing.assert_allclose(result.coefficient, wanted["coefficient"], atol=c * units(computed(case.dtype))[0] * 8)
    reach = c * (np.abs(decode(case.weight, case.dtype)).max() + np.abs(decode(result.u, case.dtype)).max())
    assert_close(case, result.grad_hidden, wanted["grad_hidden"], 8 * reach)
    assert_close(case, result.scaled_hidden, wanted["scaled_hidden"], 8 * c * np.abs(decode(case.hidden, case.dtype)))
    assert_close(case, result.grad_weight, expected.grad_weight(case, result), 40 * c)
    untouched = np.setdiff1d(np.arange(case.vocabulary), result.clean_target[result.coefficient != 0])
    np.testing.assert_array_equal(result.grad_weight[untouched], result.product[untouched])
    block = expected.columns(case, result)
    level = np.abs(result.lse).max() + 10 * case.cap + 40  # lse is rounded before it is used
    assert_close(case, result.columns[:, : block.shape[1]], block, level * c / 4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_a_gradient_the_log_probs_are_the_same(kernels: Kernels, dtype: str) -> None:
    case = make_case(dtype, 1000, 64, 0.0, seeds.generator(1, "emulator"))
    with_gradient, without = (everything.run(kernels, case, 0, gradient) for gradient in (True, False))
    np.testing.assert_array_equal(with_gradient.logp, without.logp)
    np.testing.assert_array_equal(with_gradient.sums, without.sums)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_log_prob_that_is_not_finite_raises_the_flag(kernels: Kernels, csrc: Path, dtype: str, value: float) -> None:
    case = make_case(dtype, 33, 8, 0.0, seeds.generator(2, "emulator"))
    triple = int(np.flatnonzero(expected.good(case))[0])
    case.bias[case.target[triple]] = everything.encode(np.array([value]), dtype)[0]
    with np.errstate(invalid="ignore"):
        result = everything.run(kernels, case, 0, gradient=False)
    assert not np.isfinite(result.logp[triple])
    flag = result.rows_flag[0]
    assert fault_names(csrc)[flag["fault"]] == "logprob"
    assert flag["row"] in case.row[~np.isfinite(result.logp)]
    assert not np.isfinite(flag["value"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_are_not_aligned_go_element_by_element(kernels: Kernels, dtype: str) -> None:
    case = make_case(dtype, 33, 64, 0.0, seeds.generator(3, "emulator"))
    aligned = everything.run(kernels, case, 0)
    shifted = np.zeros(case.hidden.size + 1, case.hidden.dtype)[1:].reshape(case.hidden.shape)
    shifted[:] = case.hidden
    assert shifted.ctypes.data % 16
    case.hidden = shifted
    other = everything.run(kernels, case, 0)
    np.testing.assert_array_equal(aligned.grad_hidden, other.grad_hidden)
    np.testing.assert_array_equal(aligned.grad_weight, other.grad_weight)
    if case.half:
        np.testing.assert_allclose(aligned.exact, other.exact, rtol=1e-5, atol=1e-5)
