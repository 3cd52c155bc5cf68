"""sequence_logprob on a CUDA device: the grid of the CPU's tests, faults that are said later, streams and graphs."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import cycle

import pytest
import torch
from logprob_cases import DTYPES, Case, call, draw
from test_logprob_parity import BUDGETS, CHUNKS, SQUASHES, WANTED, assert_close
from torch import Tensor

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine import ops
from rosepo_bench.engine.ops import library

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
    pytest.mark.skipif(library.info()["cuda"] == "none", reason="the library is built without CUDA"),
]


def on_device(case: Case) -> Case:
    tensors = {f.name: getattr(case, f.name) for f in fields(case)}
    return replace(case, **{name: x.cuda() for name, x in tensors.items() if isinstance(x, Tensor)})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [0, 1, 7, 65])
@pytest.mark.parametrize("vocabulary", [1, 2, 33, 1003, 33_001])
@pytest.mark.parametrize("width", [1, 3, 64])
def test_equal_to_plain_torch(rows: int, vocabulary: int, width: int, dtype: torch.dtype) -> None:
    wanted, chunks = cycle(WANTED), cycle(CHUNKS)
    for number, squash in enumerate(SQUASHES):
        case = draw(rows, vocabulary, width, dtype, seed=number, **squash)
        for budget in BUDGETS:
            names = " ".join(name for name in next(wanted).split() if name != "bias" or case.bias is not None)
            found = call(on_device(case), names, memory_budget=budget, chunk_rows=next(chunks))
            assert_close(case, {name: x.cpu() for name, x in found.items()})
    ops.raise_errors("cuda")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_two_runs_are_equal_to_the_last_bit(dtype: torch.dtype) -> None:
    case = on_device(draw(65, 1003, 64, dtype, bias=True))
    for budget in BUDGETS:
        first, second = (call(case, memory_budget=budget) for _ in range(2))
        assert all(torch.equal(x, second[name]) for name, x in first.items())


@pytest.mark.parametrize("name", ["targets", "row_of_target", "sequence_of_target"])
@pytest.mark.parametrize("value", [-1, 1 << 40])
def test_a_bad_index_makes_its_sequence_nan_and_is_said_later(name: str, value: int) -> None:
    case = on_device(draw(7, 33, 8, torch.float32))
    good = call(case, "hidden")["logps"]
    indices = getattr(case, name).clone()
    indices[4] = value
    logps = call(replace(case, **{name: indices}), "hidden")["logps"]
    bad = torch.zeros_like(logps, dtype=torch.bool)
    bad[case.sequence_of_target[4]] = name != "sequence_of_target"
    assert torch.equal(logps.isnan(), bad)
    others = ~bad
    others[case.sequence_of_target[4]] = False
    torch.testing.assert_close(logps[others], good[others])
    with pytest.raises(UserError, match=rf"{name}\[4\] is {value}"):
        ops.raise_errors("cuda")
    with pytest.raises(UserError, match=rf"{name}\[4\] is {value}"):
        call(replace(case, **{name: indices}), "hidden", validate=True)
    ops.raise_errors("cuda")


def test_a_logit_that_is_not_finite_is_said_later() -> None:
    case = on_device(draw(7, 33, 8, torch.float32))
    case.hidden[3, 2] = float("nan")
    call(case, "hidden")
    with pytest.raises(UserError, match="log-prob"):
        ops.raise_errors("cuda")


def test_stream_and_graph() -> None:
    case = on_device(draw(65, 1003, 64, torch.bfloat16))
    wanted = call(case, "hidden weight")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        other = call(case, "hidden weight")
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call(case, "hidden weight")
        with pytest.raises(UserError, match="validate=True waits"):
            call(case, "hidden", validate=True)
    graph.replay()
    for name, x in wanted.items():
        assert torch.equal(other[name], x)
        assert torch.equal(found[name], x)
    case.hidden.mul_(0.5)
    graph.replay()
    assert torch.equal(found["logps"], call(case, "hidden weight")["logps"])


def test_peak_memory_does_not_grow_with_rows_times_vocabulary() -> None:
    peaks = []
    for rows in (512, 2048):
        case = on_device(draw(rows, 32_000, 256, torch.bfloat16))
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call(case, "hidden", chunk_rows=256)
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert max(peaks) <= (64 << 20) + 4 * 2048 * 256 * 4
