"""The language model's head as a module that returns log-probs of sequences without holding all logits."""

from __future__ import annotations

from torch import Tensor, nn
from torch._subclasses import FakeTensor  # what torch.export traces with

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.ops.logprob_op import MEMORY_BUDGET, sequence_logprob


class SequenceLogProb(nn.Module):
    """``lm_head``, called through :func:`rosepo_bench.engine.ops.sequence_logprob`.

    An ordinary module whose only parameters are those of ``lm_head``, so that DDP and FSDP can wrap it. Apply FSDP to
    this module, not to the linear layer inside: it then gathers a sharded head before ``forward``. A head that is
    quantised, adapted by LoRA or sharded in another way has no plain weight and is refused with a UserError. The other
    arguments are those of the function.
    """

    def __init__(
        self,
        lm_head: nn.Module,
        *,
        logit_scale: float = 1.0,
        soft_cap: float = 0.0,
        chunk_rows: int = 0,
        memory_budget: int = MEMORY_BUDGET,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        if type(lm_head) is not nn.Linear:
            kind = type(lm_head)
            raise UserError(
                f"lm_head is a {kind.__name__} ({kind.__module__}): want a plain torch.nn.Linear. Merge LoRA layers "
                "into it, or leave it out of their targets; shard SequenceLogProb rather than the layer inside; a "
                "quantised head has no weight to multiply with"
            )
        self.lm_head = lm_head
        self.settings = {
            "logit_scale": logit_scale,
            "soft_cap": soft_cap,
            "chunk_rows": chunk_rows,
            "memory_budget": memory_budget,
            "impl": impl,
        }

    def forward(
        self, hidden: Tensor, targets: Tensor, row_of_target: Tensor, sequence_of_target: Tensor, num_sequences: int
    ) -> Tensor:
        """Log-probs ``[num_sequences]``; arguments as of ``sequence_logprob``."""
        weight, bias = self.lm_head.weight, self.lm_head.bias
        for name, parameter in (("weight", weight), ("bias", bias)):
            if parameter is not None and type(parameter) not in (Tensor, nn.Parameter, FakeTensor):
                raise UserError(
                    f"lm_head.{name} is a {type(parameter).__name__}: a sharded head must be gathered first; apply "
                    "fully_shard to SequenceLogProb itself (or to a module around it), not to the layer inside"
                )
        return sequence_logprob(
            hidden,
            weight,
            targets=targets,
            row_of_target=row_of_target,
            sequence_of_target=sequence_of_target,
            num_sequences=num_sequences,
            bias=bias,
            **self.settings,  # type: ignore[arg-type]
        )
