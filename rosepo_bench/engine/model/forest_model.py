"""Any suitable causal LM of transformers over the token forest: groups of sequences in, their log-probs out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rosepo_bench.base.errors import UserError, nearest
from rosepo_bench.engine.forest import Batch, Group, Limits, build_all, collate
from rosepo_bench.engine.model import attention
from rosepo_bench.engine.model.architectures import head_settings, refuse_unsuitable
from rosepo_bench.engine.ops.head import SequenceLogProb


@dataclass
class ForestModel:
    """``network``, a causal LM of transformers, LoRA layers inside where it is adapted; it attends as ``attention``
    says (`auto`, `forest`, `dense` or `flex`, see engine/attention.py) from here on. ``impl`` is the implementation of
    the operators (engine/ops.py), ``square_cost`` that of attention (engine/packing.py; 0: counted from the shape).

    Raises UserError for a model that the forest would be wrong for.
    """

    network: Any
    _: KW_ONLY
    impl: str = "auto"
    attention: str = "auto"
    square_cost: float = 0.0

    def __post_init__(self) -> None:
        if self.attention not in attention.CHOICES:
            raise UserError(f"attention is {self.attention!r}: {nearest(self.attention, attention.CHOICES)}")
        refuse_unsuitable(self.network.config)
        attention.install(self.network)

    @property
    def context(self) -> int:
        """Tokens of the longest sequence that the model has positions for."""
        return int(self.network.config.max_position_embeddings)

    @property
    def vocabulary(self) -> int:
        """Token ids are below it."""
        return int(self.network.get_input_embeddings().num_embeddings)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        device: torch.device = next(self.network.parameters()).device
        return device

    def __call__(self, groups: Iterable[Group]) -> Tensor:
        """Summed log-probs of the responses ``[sequences]``, those of the first group first, in one forward pass.

        A group is any number of (prompt, response) pairs of token ids, numpy arrays or lists: a prompt with its chosen
        and rejected responses, candidates, a user's steps. What sequences of a group share is computed once. Raises
        UserError for a pair that the model cannot take.
        """
        trees = [tree for made in build_all(groups, Limits(self.context, self.vocabulary)) for tree in made]
        if not trees:
            raise UserError("there is no group of sequences: a forward pass needs one")
        return self.logps(collate(trees, device=self.device))

    def logps(self, batch: Batch) -> Tensor:
        """Summed log-probs of the responses, fp32 (fp64 for an fp64 model) ``[sequences]``.

        Only rows that predict something reach the vocabulary, each once however many targets hang on it.
        """
        inputs = attention.inputs(batch, self.network.config, self.attention, self.impl)
        hidden = self.network.base_model(**inputs, use_cache=False).last_hidden_state
        rows = hidden[0].index_select(0, batch.rows)
        return self.head(rows, batch.target, batch.row_of_target, batch.sequence, batch.sequences)

    @cached_property
    def head(self) -> SequenceLogProb:
        """From hidden rows to log-probs of sequences."""
        settings = head_settings(self.network.config)
        return SequenceLogProb(self.network.get_output_embeddings(), impl=self.impl, **settings)  # type: ignore[arg-type]
