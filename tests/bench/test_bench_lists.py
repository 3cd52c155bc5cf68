"""Everyone who computes lists computes the same numbers, and wrong ones are caught before the clock starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from rosepo_bench.bench import list_peers as peers
from rosepo_bench.bench.exact import UnequalError
from rosepo_bench.bench.head import BETA
from rosepo_bench.bench.job import Found
from rosepo_bench.bench.list_cases import ListCase, ListContest
from rosepo_bench.bench.list_peers import LIST_PEERS
from rosepo_bench.bench.lists import END, HEADER, ListSize, draw
from rosepo_bench.bench.network import twin
from rosepo_bench.bench.peer import OURS

SMALL = ListSize(
    prompts=3, responses=2, shortest=12, longest=20, layers=2, hidden=32, intermediate=48, heads=2, key_heads=1,
    vocabulary=97,
)  # fmt: skip
USERS = replace(SMALL, prompts=12, users=2, shortest=2, longest=4, suffix=3)
SCORE = replace(SMALL, responses=6)
CHECKPOINTED = {peers.TRL: True, peers.TRL_KEPT: False}


def contest(size: ListSize, mode: str) -> ListContest:
    return ListCase("step", size, mode, ()).start(3)


@pytest.mark.parametrize(
    "size", [SMALL, replace(SMALL, responses=4), USERS, replace(USERS, suffix=0), replace(SMALL, lora=2)]
)
def test_steps_are_equal(size: ListSize) -> None:
    found = contest(size, "train")
    for name in (OURS, peers.A_PROMPT, peers.SEPARATE, peers.FULL, peers.REPEATED):
        call = found.call(name)
        first, second = call(), call()
        assert found.verify(name, first)
        assert found.verify(name, second), "a second call begins anew"


@pytest.mark.parametrize("name", CHECKPOINTED)
@pytest.mark.parametrize("size", [SMALL, replace(SMALL, lora=2)])
def test_the_trainer_is_equal(size: ListSize, name: str) -> None:
    if (why := LIST_PEERS[name].absent()) is not None:
        pytest.skip(f"{name}: {why}")
    found = contest(size, "train")
    plain, seen = found.call(peers.FULL), []
    found.job.network.base_model.layers[0].self_attn.register_forward_hook(lambda *_: seen.append(1))
    call = found.call(name)
    assert found.verify(name, call())
    assert found.verify(name, call())
    assert found.verify(peers.FULL, plain()), "others do not meet what the trainer does to its model"
    seen.clear()
    call()
    assert len(seen) == 1 + CHECKPOINTED[name], "with checkpointing a layer runs again in the backward pass"


def test_scores_are_equal() -> None:
    found = contest(SCORE, "score")
    for name in (OURS, peers.SEPARATE, peers.CACHED, peers.CACHED_ALL):
        assert found.verify(name, found.call(name)())


def test_the_exact_numbers_are_the_definition() -> None:
    found = contest(replace(SMALL, responses=3), "train")
    exact, network = found.yardstick.exact, twin(found.job.network)
    logps = []
    for prompt, response in found.job.lists.sequences:
        ids = torch.from_numpy(np.concatenate([prompt, response])).long()[None]
        every = network(input_ids=ids).logits[0].log_softmax(-1)
        logps.append(sum(every[len(prompt) - 1 + i, token] for i, token in enumerate(response.tolist())))
    rewards = BETA * (torch.stack(logps).view(3, 3) - torch.from_numpy(found.job.lists.reference))
    worse = (rewards[:, 1:] - rewards[:, :1]).exp().sum(1)
    (worse.log1p()).mean().backward()
    torch.testing.assert_close(torch.stack(logps).view(3, 3), exact["log-probs"])
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, exact[f"gradient of {name}"])
        assert float(parameter.grad.abs().max()) > 0


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("log-probs is off", lambda f: replace(f, logps=f.logps + 1e-3)),
        ("log-probs is off", lambda f: replace(f, logps=f.logps.flip(1))),
        ("log-probs is off", lambda f: replace(f, logps=f.logps * torch.nan)),
        ("gives no gradient of", lambda f: Found(f.logps, {})),
        ("gradient of .* is off", lambda f: Found(f.logps, {name: 1.0001 * one for name, one in f.gradients.items()})),
    ],
)
def test_other_numbers_are_refused(name: str, wrong: Callable[[Found], Found]) -> None:
    found = contest(SMALL, "train")
    right = found.call(peers.SEPARATE)()
    assert isinstance(right, Found)
    with pytest.raises(UnequalError, match=f"{peers.SEPARATE}.* {name}"):
        found.verify(peers.SEPARATE, wrong(right))


def test_a_peak_counts_from_model_and_gradients() -> None:
    found = ListCase("step", SMALL, "train", (), measures=("memory",)).start(3)
    call = found.call(OURS)
    before = {name: p.grad for name, p in found.job.network.named_parameters()}
    assert all(one is not None and not one.any() for one in before.values()), "there before the call"
    result = call()
    assert isinstance(result, Found)
    assert all(result.gradients[name] is one for name, one in before.items())
    assert found.verify(OURS, result)
    for name, one in contest(SMALL, "train").call(OURS)().gradients.items():
        torch.testing.assert_close(one, result.gradients[name])


def test_what_is_drawn() -> None:
    drawn = draw(SCORE, seed=1)
    assert [len(one) for one in draw(SCORE, seed=1).prompts] == [len(prompt) for prompt in drawn.prompts]
    assert all(12 <= len(prompt) <= 20 for prompt in drawn.prompts)
    assert all(6 <= len(one) <= 8 and one[-1] == END for some in drawn.responses for one in some)
    assert all(len({one.tobytes() for one in some}) == 6 for some in drawn.responses)
    firsts = [one[0] for some in draw(replace(SCORE, vocabulary=5000, prompts=50), 1).responses for one in some]
    assert len(set(firsts)) < 0.6 * len(firsts), "titles share their first tokens"


@pytest.mark.parametrize(("suffix", "listed"), [(0, 0), (3, 0), (3, 4)])
def test_steps_of_a_user_go_on_from_each_other(suffix: int, listed: int) -> None:
    drawn = draw(replace(USERS, suffix=suffix, listed=listed), seed=2)
    assert drawn.owner.tolist() == [0] * 6 + [1] * 6
    items = [int((prompt == END).sum()) for prompt in drawn.prompts]
    assert [count - listed for count in items] == 2 * [2, 3, 4, 2, 3, 4]
    for step in (0, 1, 3, 4):
        before, chosen = drawn.prompts[step], drawn.responses[step][0]
        history = before[: len(before) - suffix] if not listed else before[: HEADER + 8]
        expected = np.concatenate([history, chosen]) if not listed else history
        assert drawn.prompts[step + 1][: len(expected)].tolist() == expected.tolist()
    if listed:
        pairs = zip(drawn.prompts, drawn.responses, strict=True)
        assert all(some[0].tobytes() in prompt.tobytes() for prompt, some in pairs)


def test_tokens_are_counted_and_bound_the_ratio() -> None:
    found = contest(USERS, "train")
    seen: list[int] = []
    found.job.network.base_model.register_forward_pre_hook(
        lambda _, __, inputs: seen.append(inputs["input_ids"].numel()), with_kwargs=True
    )
    for name in (OURS, peers.A_PROMPT, peers.SEPARATE):
        seen.clear()
        found.call(name)()
        assert 0.7 * sum(seen) <= found.tokens(name) <= sum(seen), "equal but for padding"
    assert found.bound(peers.SEPARATE) == found.tokens(OURS) / found.tokens(peers.SEPARATE)
    assert found.tokens(OURS) < found.tokens(peers.A_PROMPT) < found.tokens(peers.SEPARATE)
    score = contest(SCORE, "score")
    assert score.tokens(OURS) <= score.tokens(peers.CACHED) < score.tokens(peers.SEPARATE)
