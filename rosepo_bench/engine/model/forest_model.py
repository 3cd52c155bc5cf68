"""A causal LM of transformers over the token forest: groups of sequences in, their log-probs out."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor

from rosepo_bench.base.errors import UserError, nearest
from rosepo_bench.engine.forest import Batch, Group, Limits, build_all, collate
from rosepo_bench.engine.model import attention, self_check
from rosepo_bench.engine.model.architectures import head_settings, refuse_unsuitable
from rosepo_bench.engine.model.installing import install
from rosepo_bench.engine.model.self_check import SelfCheck
from rosepo_bench.engine.model.unwrap import head_of, refuse_changed, unwrap
from rosepo_bench.engine.ops.head import SequenceLogProb


@dataclass
class ForestModel:
    """``network`` is a causal LM of transformers, with LoRA layers inside if adapted; where torch.compile or peft
    wrapped it, it becomes the model inside. Its attention is replaced by ``attention`` (`auto`, `forest`, `dense` or
    `flex`, see engine/model/attention.py). ``impl`` is the implementation of the operators (engine/ops);
    ``square_cost`` is the cost of attention by which trees are cut (see engine/model/limits.py; 0: computed from the
    model's shape). Every pass computes in ``dtype`` under autocast, whatever dtype the weights have; None: no autocast.

    Raises UserError for a model whose log-probs over the forest would be wrong: here and at every pass for what can be
    seen, at the first pass of a network for what must be measured (see ``check``).
    """

    network: Any
    _: KW_ONLY
    impl: str = "auto"
    attention: str = "auto"
    square_cost: float = 0.0
    dtype: torch.dtype | None = None
    _head: SequenceLogProb | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.attention not in attention.CHOICES:
            raise UserError(f"attention is {self.attention!r}: {nearest(self.attention, attention.CHOICES)}")
        self.network = unwrap(self.network)
        refuse_unsuitable(self.network.config)
        install(self.network)

    @property
    def context(self) -> int:
        """Tokens of the longest sequence that the model has positions for."""
        return int(self.network.config.max_position_embeddings)

    @property
    def vocabulary(self) -> int:
        """The number of token ids."""
        return int(self.network.get_input_embeddings().weight.shape[0])

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        device: torch.device = next(self.network.parameters()).device
        return device

    def __call__(self, groups: Iterable[Group]) -> Tensor:
        """Summed log-probs of the responses ``[sequences]``, those of the first group first, in one forward pass.

        A group is any number of (prompt, response) pairs of token ids, numpy arrays or lists: a prompt with its chosen
        and rejected responses, candidates, a user's steps. A prefix that sequences of a group share is computed once.
        Raises UserError for a pair that the model cannot take.
        """
        trees = [tree for made in build_all(groups, Limits(self.context, self.vocabulary)) for tree in made]
        if not trees:
            raise UserError("no group of sequences was given: a forward pass needs at least one")
        return self.logps(collate(trees, device=self.device))

    def logps(self, batch: Batch) -> Tensor:
        """Summed log-probs of the responses, fp32 (fp64 for an fp64 model) ``[sequences]``.

        The head runs only on positions that predict a token, once for each, however many targets it has.
        """
        inputs = attention.inputs(batch, self.network.config, self.attention, self.impl)
        rows = self.states(**inputs, use_cache=False)[0].index_select(0, batch.rows)
        return self.sums(rows, batch.target, batch.row_of_target, batch.sequence, batch.sequences)

    @property
    def self_check(self) -> SelfCheck | None:
        """What ``check`` found for this network under these settings; None before the first pass."""
        return self_check.checked(self)

    def check(self) -> SelfCheck | None:
        """Compares log-probs over the forest with those of separate rows through the network's own forward (eager
        attention), on two short trees; the largest difference and how much of it rounding may explain.

        The first pass does so too, once for a network under the same settings. The probe is longer than the network's
        window, unless that has more than 512 tokens: such a window is not checked, as the probe would be costly.
        Attention is the one that a pass of the probe's size takes. Mode, hooks and random states are left as they
        were. None for a network whose log-probs are not finite. Raises UserError for a difference beyond rounding.
        """
        install(self.network)
        return self_check.check(self)

    # Every pass goes through the next three methods.

    def states(self, **inputs: Any) -> Tensor:
        """The final hidden states ``[B, T, d]`` of the body for the given inputs of transformers."""
        refuse_changed(self.network, "the model")
        install(self.network)
        if self.self_check is None:
            self.check()
        return self.body(**inputs)

    def sums(
        self, rows: Tensor, target: Tensor, row_of_target: Tensor, sequence_of_target: Tensor, sequences: int
    ) -> Tensor:
        """Log-probs ``[sequences]`` from the hidden states ``rows`` ``[N, d]``; arguments as in ``SequenceLogProb``."""
        with self.autocast():
            found: Tensor = self.head(rows, target, row_of_target, sequence_of_target, sequences)
        return found

    def logits(self, rows: Tensor) -> Tensor:
        """Logits ``[N, V]`` for hidden states ``rows`` ``[N, d]``, without the head's scale or cap, which do not change
        their order."""
        with self.autocast():
            found: Tensor = self.network.get_output_embeddings()(rows)
        return found

    def body(self, **inputs: Any) -> Tensor:
        """``states`` without looking at the network first."""
        with self.autocast():
            states: Tensor = self.network.base_model(**inputs).last_hidden_state
        return states

    def autocast(self) -> AbstractContextManager[None]:
        """What every pass computes under; no other code of the engine uses autocast."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)

    @property
    def head(self) -> SequenceLogProb:
        """From hidden states to log-probs of sequences: the network's head as it is now. Raises UserError for one that
        is not a plain linear layer."""
        made = self.new_head()
        if self._head is None or (self._head.lm_head, self._head.settings) != (made.lm_head, made.settings):
            self._head = made
        return self._head

    def new_head(self) -> SequenceLogProb:
        """A module of its own over the network's head."""
        settings = head_settings(self.network.config)
        return SequenceLogProb(head_of(self.network), impl=self.impl, **settings)  # type: ignore[arg-type]
