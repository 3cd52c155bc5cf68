"""Everyone who computes lists computes the same numbers, and wrong ones are caught before the clock starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from rosepo_bench.bench import list_peers as peers
from rosepo_bench.bench.exact import UnequalError
from rosepo_bench.bench.job import Found
from rosepo_bench.bench.list_cases import ListCase, ListContest, list_cases
from rosepo_bench.bench.list_peers import LIST_PEERS
from rosepo_bench.bench.lists import END, HEADER, ListSize, draw
from rosepo_bench.bench.peer import OURS

SMALL = ListSize(
    prompts=3, responses=2, shortest=12, longest=20, layers=2, hidden=32, intermediate=48, heads=2, key_heads=1,
    vocabulary=97,
)  # fmt: skip
USERS = replace(SMALL, prompts=12, users=2, shortest=2, longest=4, suffix=3)
ADAPTED = replace(SMALL, lora=2)


def contest(size: ListSize, mode: str) -> ListContest:
    return ListCase("step", size, mode, ()).start(3)


@pytest.mark.parametrize("size", [SMALL, replace(SMALL, responses=4), USERS, replace(USERS, suffix=0), ADAPTED])
def test_steps_are_equal(size: ListSize) -> None:
    found = contest(size, "train")
    for name, peer in LIST_PEERS.items():
        pairs_alone = name in (peers.TRL, peers.TRL_KEPT)
        if name == peers.CACHED or (pairs_alone and (size.responses > 2 or peer.absent())):
            continue
        call = found.call(name)
        first, second = call(), call()
        assert found.verify(name, first)
        assert found.verify(name, second), "a second call begins anew"
        torch.testing.assert_close(first.logps, second.logps)
