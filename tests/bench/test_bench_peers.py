"""Everyone who is timed computes the same numbers, and a wrong one is caught before the clock starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rosepo_bench.base.errors import UserError
from rosepo_bench.bench import exact as exact_module
from rosepo_bench.bench.cases import Case, HeadContest, cases
from rosepo_bench.bench.exact import UnequalError, exact
from rosepo_bench.bench.head import MODES, TOKENS, Head, Result, Size, dpo_loss, draw
from rosepo_bench.bench.peers import OURS, PEERS, PRODUCTS, Peer

SIZE = Size(rows=96, hidden=24, vocabulary=331, dtype="float32", device="cpu")


def dense(head: Head) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """fp64 log-probs of sequences, probabilities [N, V] and one-hot targets [N, V], by the definition."""
    logits = head.hidden.double() @ head.weight.double().T
    probabilities = logits.exp() / logits.exp().sum(-1, keepdim=True)
    hot = torch.nn.functional.one_hot(head.targets, logits.shape[1]).double()
    tokens = (probabilities * hot).sum(-1).log()
    return tokens.view(-1, TOKENS).sum(-1), probabilities, hot


def test_exact_is_the_definition() -> None:
    head = draw(SIZE, seed=1)
    logps, probabilities, hot = dense(head)
    found = exact(head, "trained").result
    logits = head.upstream.double().repeat_interleave(TOKENS)[:, None] * (hot - probabilities)
    torch.testing.assert_close(found.logps, logps)
    torch.testing.assert_close(found.hidden, logits @ head.weight.double())
    torch.testing.assert_close(found.weight, logits.T @ head.hidden.double())
    assert exact(head, "frozen").result.weight is None
    assert exact(head, "forward").result.hidden is None


def test_the_upstream_of_pairs_is_the_dpo_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    head = draw(SIZE, seed=2)
    hidden = head.hidden.double().requires_grad_()
    logps = head.sums((hidden @ head.weight.double().T).log_softmax(-1)[head.rows, head.targets])
    (wanted,) = torch.autograd.grad(dpo_loss(logps), hidden)
    torch.testing.assert_close(exact(head, "frozen", pairs_alone=True).result.hidden, wanted)
    # Of a large head some pairs are checked: the same numbers, at the rows that are named.
    monkeypatch.setattr(exact_module, "CHECKED_ROWS", 48)
    some = exact(head, "frozen", pairs_alone=True)
    assert len(some.rows) == 48
    assert some.sequences.tolist() == [0, 2, 5, 6, 8, 11]
    torch.testing.assert_close(some.result.hidden, wanted[some.rows])
    assert len(exact(head, "trained").rows) == SIZE.rows


def test_the_second_product_weighs_in_the_gradient() -> None:
    head = draw(SIZE, seed=3)
    _, probabilities, hot = dense(head)
    share = (probabilities @ head.weight.double()).norm() / (hot @ head.weight.double()).norm()
    assert share > 0.3, "a contestant without it would pass for equal"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if not peer.bound])
def test_equal_numbers(name: str, mode: str, dtype: str) -> None:
    if (why := PEERS[name].absent()) is not None:
        pytest.skip(f"{name}: {why}")
    contest = HeadContest(draw(replace(SIZE, dtype=dtype), seed=4), mode)
    call = contest.call(name)
    assert contest.verify(name, call())
    assert contest.verify(name, call()), "a second call gives the same"


def test_the_bound_is_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rosepo_bench.bench.peers._rows", lambda *_: 40)
    head = draw(replace(SIZE, dtype="float64"), seed=5)
    logits = head.hidden @ head.weight.T
    grad_hidden, grad_weight = PEERS[PRODUCTS].prepare(head, "trained")()
    torch.testing.assert_close(grad_hidden, logits @ head.weight)
    torch.testing.assert_close(grad_weight, logits.T @ head.hidden)
    assert PEERS[PRODUCTS].prepare(head, "frozen")()[1] is None
    assert HeadContest(head, "frozen").verify(PRODUCTS, None) is False


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("log-probs", lambda r: replace(r, logps=r.logps * (1 + 1e-4))),
        ("gradient of hidden", lambda r: replace(r, hidden=r.hidden * (1 - 1e-4))),
        ("gradient of hidden", lambda r: replace(r, hidden=r.hidden.roll(1, 0))),
        ("gradient of hidden", lambda r: replace(r, hidden=torch.full_like(r.hidden, torch.nan))),
        ("no gradient of hidden", lambda r: replace(r, hidden=None)),
        ("gradient of weight", lambda r: replace(r, weight=r.weight + 1e-3 * r.weight.abs().max())),
    ],
)
def test_other_numbers_are_refused(name: str, wrong: Callable[[Result], Result]) -> None:
    contest = HeadContest(draw(SIZE, seed=6), "trained")
    right = contest.call("naive")()
    assert contest.verify("naive", right)
    with pytest.raises(UnequalError, match=f"naive.* {name}"):
        contest.verify("naive", wrong(right))


def test_who_is_absent_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = replace(PEERS["naive"], name="other", package="no_such_package", module="no_such_package.part")
    assert peer.absent() == "not installed"
    assert peer.version() == ""
    (tmp_path / "half_installed.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert replace(peer, module="half_installed").absent() == ("does not import: No module named 'no_such_dependency'")
    assert PEERS[OURS].absent() is None


def test_the_lists_are_runnable() -> None:
    for device in ("cpu", "cuda"):
        listed = [case for case in cases(device) if isinstance(case, Case)]
        assert len({case.name for case in listed}) == len(listed)
        assert {name for case in listed for name in case.providers} <= PEERS.keys()
        assert all(case.size.device == device for case in listed)
        assert any(PRODUCTS in case.providers and case.goal for case in listed)
    assert {case.allocator for case in cases() if isinstance(case, Case)} == {"default", "kept"}


def test_rows_come_in_pairs_of_sequences() -> None:
    with pytest.raises(UserError, match=r"rows = 24: .* multiple of 16"):
        Size(rows=24, hidden=8, vocabulary=32, dtype="float32", device="cpu")


def test_a_small_case_is_the_same_work() -> None:
    case = Case(SIZE, "frozen", (OURS,))
    assert replace(case.small(), size=case.size) == case
    assert isinstance(case.peer(OURS), Peer)
