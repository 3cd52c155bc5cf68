"""forest_attention, compiled and in plain torch, computes what its definition says."""

from __future__ import annotations

from dataclasses import replace

import levels
import numpy as np
import pytest
import torch
from attention_cases import DTYPES, QUANTITIES, Case, call, check, draw, ends, error, exact, forest, largest

from rosepo_bench.engine.forest import build
from rosepo_bench.engine.ops import attention_reference as forest_attention

WIDTHS = (1, 5, 16, 33, 64, 80, 128)
GROUPINGS = ((1, 1), (4, 2), (6, 1))
NAN = float("nan")


def forests() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Chains shorter and longer than a block, a star, a comb, and random ones with many and few branches."""
    comb = [depth for d in range(60) for depth in (d, d + 1)][:-1]
    shapes = [list(range(9)) + list(range(150)), [0] + [1] * 70, comb, [0] * 20]
    fixed = [(ends(depth), torch.tensor(depth)) for depth in shapes]
    return [*fixed, forest(230, seed=1), forest(190, branch=0.4, new=0.05, seed=2), forest(110, branch=0.02, seed=3)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", WIDTHS)
def test_equal_to_the_definition(width: int, dtype: torch.dtype) -> None:
    cases = []
    for number, (end, depth) in enumerate(forests()):
        heads, groups = GROUPINGS[number % 3]
        cases.append(draw(end, depth, heads=heads, groups=groups, width=width, dtype=dtype, seed=number))
    check(cases)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("window", [2, 7, 50, 1 << 62])
def test_a_window(window: int, dtype: torch.dtype) -> None:
    check([draw(*each, width=16, dtype=dtype, window=window, heads=4, groups=2) for each in forests()])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_window_of_itself_alone(dtype: torch.dtype) -> None:
    """Whatever the scores: their gradients are 0 but for rounding."""
    for end, depth in forests():
        found = call(case := draw(end, depth, width=16, dtype=dtype, window=1))
        assert_itself_alone(case, found)


def assert_itself_alone(case: Case, found: dict[str, torch.Tensor]) -> None:
    torch.testing.assert_close(found["result"], case.value)
    torch.testing.assert_close(found["grad value"], case.grad)
    rounding = 4 * torch.finfo(case.query.dtype).eps * case.query.shape[2] * largest(case.grad) * largest(case.value)
    for name, other in (("grad query", case.key), ("grad key", case.query)):
        assert largest(found[name]) <= rounding * largest(other), name


@pytest.mark.parametrize("scaling", [1.0, 0.03, -0.5, 0.0])
def test_a_scaling(scaling: float) -> None:
    check([draw(*each, width=24, dtype=torch.float32, scaling=scaling) for each in forests()])


def test_depths_may_skip_numbers() -> None:
    """Positions along a path grow, by one or by more."""
    end, depth = forest(200, seed=5)
    check([draw(end, 3 * depth + 7, dtype=torch.float64, window=window) for window in (1, 4, 40)])


@pytest.mark.parametrize("impl", ["cpp", "reference"])
def test_over_trees_of_sequences(impl: str) -> None:
    random = np.random.default_rng(11)
    trees = []
    for _ in range(4):
        trunk = random.integers(1, 50, size=40)
        trees.append(
            build([(trunk[:at], random.integers(1, 4, size=6)) for at in random.integers(5, 40, size=9)], context=64)
        )
    starts = np.cumsum([0, *map(len, trees)])
    end = np.concatenate([tree.end + start for tree, start in zip(trees, starts[:-1], strict=True)])
    case = draw(torch.from_numpy(end), torch.from_numpy(np.concatenate([tree.depth for tree in trees])), width=16)
    assert forest_attention.roots(case.end) == list(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True))
    found, wanted = call(case, impl=impl), exact(case)
    for name in QUANTITIES:
        assert error(found[name], wanted[name]) <= 1e-12, name


@pytest.mark.parametrize("soft_cap", [0.0, 0.7, 20.0])
@pytest.mark.parametrize("window", [0, 4])
def test_the_reference(window: int, soft_cap: float) -> None:
    for number, (end, depth) in enumerate(forests()):
        case = draw(end, depth, heads=4, groups=(1, 2, 4)[number % 3], soft_cap=soft_cap, window=window)
        found, wanted = call(case, impl="reference"), exact(case)
        for name in QUANTITIES:
            assert error(found[name], wanted[name]) <= 1e-12 * (1 + largest(wanted[name])), name


@pytest.mark.parametrize("impl", ["cpp", "reference"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_token_and_none(dtype: torch.dtype, impl: str) -> None:
    one = draw(torch.tensor([1]), torch.tensor([0]), width=3, dtype=dtype)
    assert_itself_alone(one, call(one, impl=impl))
    empty = torch.zeros(0, dtype=torch.int64)
    none = call(draw(empty, empty, width=3, dtype=dtype), impl=impl)
    assert [x.shape for x in none.values()] == [(2, 0, 3)] * 4


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [5, 64])
def test_strides(width: int, dtype: torch.dtype) -> None:
    """Views of other memory give the same bits; the result lies as the next layer wants it."""
    case = draw(*forest(90, seed=4), heads=4, groups=2, width=width, dtype=dtype)
    wanted = call(case)
    assert wanted["result"].transpose(0, 1).is_contiguous()
    plain = replace(case, **{name: getattr(case, name).contiguous() for name in ("query", "key", "value", "grad")})
    joint = torch.cat([case.query, case.key, case.value]).transpose(0, 1).contiguous().transpose(0, 1)
    views = replace(
        case, query=joint[:4], key=joint[4:6], value=joint[6:], grad=torch.stack([case.grad] * 2, -1)[..., 0]
    )
    columns = replace(case, **{name: getattr(case, name).mT.contiguous().mT for name in ("query", "key", "value")})
    for other in (plain, views, columns):
        found = call(other)
        assert all(torch.equal(found[name], wanted[name]) for name in QUANTITIES)
    one = replace(case, grad=torch.ones((), dtype=dtype).expand(case.grad.shape))  # as sum().backward() sends it
    ones = replace(case, grad=torch.ones_like(case.grad))
    assert all(torch.equal(x, y) for x, y in zip(call(one).values(), call(ones).values(), strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_number_of_threads_changes_no_bit(dtype: torch.dtype) -> None:
    case = draw(*forest(300, new=0.05, seed=6), heads=6, groups=3, width=32, dtype=dtype)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            results.append(call(case))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(other[name], results[0][name]) for name in QUANTITIES)


def test_a_tree_does_not_depend_on_its_neighbours() -> None:
    case = draw(*forest(260, new=0.04, seed=8), width=64, dtype=torch.float32)
    whole = call(case)
    for start, stop in forest_attention.roots(case.end):
        parts = {name: getattr(case, name)[:, start:stop] for name in ("query", "key", "value", "grad")}
        alone = call(replace(case, **parts, end=case.end[start:stop] - start, depth=case.depth[start:stop]))
        assert all(torch.equal(alone[name], whole[name][:, start:stop]) for name in QUANTITIES)


@pytest.mark.parametrize("name", ["query", "key", "value", "grad"])
@pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf")])
@pytest.mark.parametrize("window", [0, 5])
@pytest.mark.parametrize("width", [5, 16])
def test_what_is_not_finite_stays_where_it_is_seen(width: int, window: int, value: float, name: str) -> None:
    end, depth = forest(160, branch=0.2, seed=9)
    case = draw(end, depth, width=width, window=window, dtype=torch.float32)
    at = 40
    changed = getattr(case, name).clone()
    changed[1, at, 3] = value
    good, bad = call(case), call(replace(case, **{name: changed}))
    sees = case.mask()
    touched = sees[:, at] if name in ("key", "value") else torch.arange(len(end)) == at  # queries
    seen_by_those = sees[touched].any(0)  # keys
    for quantity in QUANTITIES:
        may = seen_by_those if quantity in ("grad key", "grad value") else touched
        assert torch.isfinite(bad[quantity][0]).all()
        assert torch.isfinite(bad[quantity][1][~may]).all()
        torch.testing.assert_close(bad[quantity][1][~may], good[quantity][1][~may], rtol=1e-4, atol=1e-4)
    if value != value:  # an infinity may leave a score of -infinity, which says that its key counts for nothing
        assert not torch.isfinite(bad["grad value" if name == "grad" else "result"]).all()


@pytest.mark.parametrize("window", [0, 5])
def test_a_weight_that_is_not_seen_is_nothing(window: int) -> None:
    """Not the least of numbers: times the largest of values that would be seen."""
    case = draw(*forest(160, branch=0.2, seed=9), width=16, window=window, dtype=torch.float32)
    value = case.value.clone()
    value[:, 40] = 3e38
    blind = ~case.mask()[:, 40]
    found, wanted = call(replace(case, value=value))["result"], call(case)["result"]
    assert torch.equal(found[:, blind], wanted[:, blind])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_an_earlier_call_left_in_the_scratch_does_no_harm(dtype: torch.dtype) -> None:
    bad = draw(*forest(400, seed=1), heads=4, width=70, dtype=dtype)
    bad = replace(bad, query=bad.query * NAN, key=bad.key * NAN)
    for tokens, width in ((1, 1), (7, 33), (50, 16), (101, 64)):
        case = draw(*forest(tokens, seed=2), heads=3, width=width, dtype=dtype)
        wanted = call(case)
        call(bad)
        assert all(torch.equal(x, wanted[name]) for name, x in call(case).items())
        check([case])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_element_is_written(dtype: torch.dtype) -> None:
    """In torch's deterministic mode new memory is NaN."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(1).isnan()
        for tokens, width in ((1, 1), (7, 33), (130, 16)):
            check([draw(*forest(tokens, seed=3), heads=4, groups=2, width=width, dtype=dtype)])
    finally:
        torch.use_deterministic_algorithms(False)


def test_no_gradient_in_none_out() -> None:
    case = draw(*forest(120, seed=7), width=16, dtype=torch.float32)
    found = call(replace(case, grad=torch.zeros_like(case.grad)))
    assert [largest(found[name]) for name in QUANTITIES[1:]] == [0, 0, 0]


def test_large_scores_stay_exact() -> None:
    """Scores of some hundreds: all weight on one key, and no overflow."""
    case = draw(*forest(130, seed=10), width=16, dtype=torch.float32, scaling=40.0)
    check([case])
    assert all(torch.isfinite(x).all() for x in call(case).values())


PROBE = """
from attention_cases import check, draw, forest

for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    for width in (1, 16, 33, 64):
        for window in (0, 6):
            shapes = (forest(1), forest(110, seed=1), forest(70, branch=0.4, seed=2))
            check([draw(*x, heads=4, groups=2, width=width, dtype=dtype, window=window) for x in shapes])
"""


@levels.on_x86_64
@pytest.mark.parametrize("level", levels.LEVELS)
def test_a_level_that_the_other_tests_do_not_run(level: str) -> None:
    levels.check(level, PROBE)
