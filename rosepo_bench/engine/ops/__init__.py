"""The compiled operators behind one Python function each, with gradients, fake kernels and argument checks.

>>> logps = sequence_logprob(hidden, lm_head.weight, targets=ids, row_of_target=rows, ...)
>>> mixed = forest_attention(query, key, value, end)
>>> loss = preference_loss(chosen, rejected, ref_chosen, ref_rejected, epsilon=0.1, beta=0.1).mean()

``impl`` is ``auto`` (the compiled operator of the tensors' device), ``cpp``, ``cuda`` or ``reference``
(plain torch operations, any device). Nothing falls back: what an implementation cannot do is an error that
names one that can.
"""

from rosepo_bench.engine.ops.attention_op import forest_attention
from rosepo_bench.engine.ops.implementation import IMPLEMENTATIONS, live, raise_errors
from rosepo_bench.engine.ops.logprob_op import sequence_logprob
from rosepo_bench.engine.ops.loss_op import preference_loss, preference_loss_and_statistics
from rosepo_bench.losses.formulas import Statistics

__all__ = [
    "IMPLEMENTATIONS",
    "Statistics",
    "forest_attention",
    "live",
    "preference_loss",
    "preference_loss_and_statistics",
    "raise_errors",
    "sequence_logprob",
]
