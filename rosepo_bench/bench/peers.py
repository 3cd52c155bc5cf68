"""The contestants on the head: ours, plain torch, other libraries, and the matrix products alone.

All get the same compacted rows and must give the same numbers. Each peer runs its own code with the settings that were
fastest (``function`` says which); where its default settings are slower, they are a contestant of their own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from rosepo_bench.bench.head import BETA, TOKENS, Head, Result
from rosepo_bench.bench.peer import OURS, Peer
from rosepo_bench.bench.timer import Call
from rosepo_bench.engine import ops

Logps = Callable[[Tensor, Tensor], Tensor]
"""hidden [N, d], weight [V, d] → log-probs [S] with their gradient."""


def _by_autograd(logps_of: Callable[[Head], Logps]) -> Callable[[Head, str], Call]:
    """A call that computes the log-probs and, unless the mode is ``forward``, gradients for the head's upstream."""

    def prepare(head: Head, mode: str) -> Call:
        logps = logps_of(head)
        if mode == "forward":
            return lambda: _without_gradient(logps, head)
        hidden, weight = _leaves(head, mode)
        inputs = [hidden, weight] if mode == "trained" else [hidden]

        def call() -> Result:
            values = logps(hidden, weight)
            return Result(values.detach(), *torch.autograd.grad(values, inputs, head.upstream.to(values.dtype)))

        return call

    return prepare


def _without_gradient(logps: Logps, head: Head) -> Result:
    with torch.no_grad():
        return Result(logps(head.hidden, head.weight))


def _leaves(head: Head, mode: str) -> tuple[Tensor, Tensor]:
    return head.hidden.detach().requires_grad_(mode != "forward"), head.weight.detach().requires_grad_(
        mode == "trained"
    )


def _ours(head: Head) -> Logps:
    def logps(hidden: Tensor, weight: Tensor) -> Tensor:
        return ops.sequence_logprob(
            hidden,
            weight,
            targets=head.targets,
            row_of_target=head.rows,
            sequence_of_target=head.sequence_of_target,
            num_sequences=head.sequences,
        )

    return logps


def _naive(head: Head) -> Logps:
    def logps(hidden: Tensor, weight: Tensor) -> Tensor:
        logits = functional.linear(hidden, weight).float()
        tokens = functional.log_softmax(logits, -1).gather(1, head.targets[:, None])[:, 0]
        return head.sums(tokens)

    return logps


def _trl(tile: int) -> Callable[[Head], Logps]:
    def logps_of(head: Head) -> Logps:
        from trl.kernels import ChunkedLogProbFunction

        def logps(hidden: Tensor, weight: Tensor) -> Tensor:
            tokens = ChunkedLogProbFunction.apply(hidden, weight, None, head.targets, 1.0, tile, None, 1.0, ())[0]
            return head.sums(tokens)

        return logps

    return logps_of


def _liger_selective(head: Head) -> Logps:
    from liger_kernel.chunked_loss import fused_linear_ppo as liger

    def logps(hidden: Tensor, weight: Tensor) -> Tensor:
        tokens = liger._ChunkedSelectiveLogProbFunction.apply(
            hidden, weight, head.targets, None, 1.0, liger._SELECTIVE_LOGPROB_VOCAB_CHUNK_SIZE
        )
        return head.sums(tokens)

    return logps


def _liger_dpo(head: Head, mode: str) -> Call:
    from liger_kernel.chunked_loss import LigerFusedLinearDPOLoss

    cuda = head.hidden.is_cuda
    loss_of = LigerFusedLinearDPOLoss(
        beta=BETA, use_ref_model=False, compiled=cuda, chunk_size=_rows(head, 128, 1024) // (2 * TOKENS)
    )
    hidden, weight = _leaves(head, mode)
    targets = head.targets.view(head.sequences, TOKENS)
    inputs = {"forward": [], "frozen": [hidden], "trained": [hidden, weight]}[mode]

    def call() -> Result:
        loss, (chosen, rejected, *_) = loss_of(weight, hidden.view(head.sequences, TOKENS, -1), targets)
        grads = torch.autograd.grad(loss, inputs) if inputs else ()
        return Result(torch.cat([chosen, rejected]), *grads)

    return call


def _torch_cross_entropy(chunked: bool) -> Callable[[Head], Logps]:
    def logps_of(head: Head) -> Logps:
        rows = _rows(head, 128, 1024) if chunked else None
        options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=rows)

        def logps(hidden: Tensor, weight: Tensor) -> Tensor:
            losses = functional.linear_cross_entropy(hidden, weight, head.targets, reduction="none", options=options)
            return head.sums(-losses)

        return logps

    return logps_of


def _products(head: Head, mode: str) -> Call:
    """Only the matrix products of a mode; the call returns the buffers that they are written into."""
    hidden, weight = head.hidden, head.weight
    rows = min(_rows(head, 512, 1024), len(hidden))
    buffer = hidden.new_empty(rows, len(weight))
    grad_hidden = torch.empty_like(hidden)
    grad_weight = torch.empty_like(weight) if mode == "trained" else None

    def call() -> tuple[Tensor, Tensor | None]:
        for start in range(0, len(hidden), rows):
            part = hidden[start : start + rows]
            logits = buffer[: len(part)]
            torch.mm(part, weight.T, out=logits)
            if mode != "forward":
                torch.mm(logits, weight, out=grad_hidden[start : start + rows])
            if grad_weight is not None:
                grad_weight.addmm_(logits.T, part, beta=0 if start == 0 else 1)
        return grad_hidden, grad_weight

    return call


def _rows(head: Head, cpu: int, cuda: int) -> int:
    """Rows of a chunk for peers that let the caller choose: the fastest on each device."""
    return cuda if head.hidden.is_cuda else cpu


PRODUCTS = "matrix products"
PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(OURS, "ops.sequence_logprob", _by_autograd(_ours), "rosepo_bench", "rosepo_bench"),
        Peer("naive", "linear, log_softmax, gather, index_add", _by_autograd(_naive)),
        Peer(
            "trl",
            "trl.kernels.ChunkedLogProbFunction, log-probs only, tile 4096×32768 as DPOTrainer sets it",
            _by_autograd(_trl(32768)),
            "trl",
            "trl.trainer.utils",
        ),
        Peer(
            "trl small tile",
            "trl.kernels.ChunkedLogProbFunction, log-probs only, tile 4096×4096 (faster on a CPU)",
            _by_autograd(_trl(4096)),
            "trl",
            "trl.trainer.utils",
        ),
        Peer(
            "liger selective",
            "liger_kernel fused_linear_ppo._ChunkedSelectiveLogProbFunction, chunks 2048×4096 (its default)",
            _by_autograd(_liger_selective),
            "liger-kernel",
            "liger_kernel.chunked_loss",
        ),
        Peer(
            "liger dpo",
            "LigerFusedLinearDPOLoss without a reference model, the loss's own upstream, not compiled and 128 rows a "
            "chunk on a CPU (compiled, 1024 rows on CUDA)",
            _liger_dpo,
            "liger-kernel",
            "liger_kernel.chunked_loss",
            pairs_alone=True,
        ),
        Peer(
            "torch linear_cross_entropy",
            "torch.nn.functional.linear_cross_entropy, reduction none, 128 rows a chunk on a CPU (1024 on CUDA)",
            _by_autograd(_torch_cross_entropy(True)),
            module="torch.nn.modules.linear_cross_entropy",
        ),
        Peer(
            "torch linear_cross_entropy auto",
            "torch.nn.functional.linear_cross_entropy, reduction none, LinearCrossEntropyOptions() as it comes",
            _by_autograd(_torch_cross_entropy(False)),
            module="torch.nn.modules.linear_cross_entropy",
        ),
        Peer(
            PRODUCTS,
            "torch.mm into kept buffers: logits (forward), P·W too (frozen), Pᵀ·h too (trained); 512 rows a chunk on a "
            "CPU (1024 on CUDA)",
            _products,
            bound=True,
        ),
    )
}
