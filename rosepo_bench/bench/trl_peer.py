"""TRL's unmodified DPOTrainer on the same lists: its own collator, loss and backward pass."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor

from rosepo_bench.bench.head import BETA
from rosepo_bench.bench.job import Found, Job
from rosepo_bench.bench.lists import Lists
from rosepo_bench.bench.network import checkpoint
from rosepo_bench.bench.timer import Call


def prepare(checkpointing: bool) -> Callable[[Job, str], Call]:
    """A call is one ``training_step`` including collation; only for K = 1 and the mode ``train``."""

    def of(job: Job, mode: str) -> Call:
        assert (mode, job.size.responses) == ("train", 2), "DPOTrainer trains on pairs"
        trainer = _trainer(job)
        if checkpointing:
            checkpoint(job.network)
        examples = _examples(job.lists)

        def call() -> Found:
            job.clear()
            with _kept_logps(job.network) as kept:
                trainer.training_step(job.network, trainer.data_collator(examples))
            return job.found(kept[0].view(2, -1).T)

        return call

    return of


def _examples(lists: Lists) -> list[dict[str, Any]]:
    return [
        {
            "prompt_ids": prompt.tolist(),
            "chosen_ids": chosen.tolist(),
            "rejected_ids": rejected.tolist(),
            "ref_chosen_logps": float(reference[0]),
            "ref_rejected_logps": float(reference[1]),
        }
        for prompt, (chosen, rejected), reference in zip(lists.prompts, lists.responses, lists.reference, strict=True)
    ]


def _trainer(job: Job) -> Any:
    """A trainer for ``job.network``. It requires a data set: one made-up pair, never trained on."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    data = Dataset.from_list([{"prompt": "a", "chosen": " b", "rejected": " c"}])
    # Hides progress bars of the data set's preparation, and warnings about deprecated names between TRL and
    # transformers.
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        settings = DPOConfig(
            folder,
            beta=BETA,
            bf16=job.size.dtype == "bfloat16",
            max_length=None,
            precompute_ref_log_probs=True,
            report_to="none",
            disable_tqdm=True,
            use_cpu=job.size.device == "cpu",
        )
        trainer = DPOTrainer(job.network, args=settings, train_dataset=data, processing_class=_tokenizer())
    trainer.current_gradient_accumulation_steps = 1  # `train`, which is not called, would set it
    return trainer


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<begin>": 0, "<end>": 1, "a": 2, "b": 3, "c": 4}
    made = Tokenizer(models.WordLevel(words, unk_token="<begin>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", pad_token="<begin>")


@contextmanager
def _kept_logps(network: Any) -> Iterator[list[Tensor]]:
    """The log-probs ``[2n]`` that the model gives the trainer, chosen first."""
    kept: list[Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        kept.append(output.log_probs.detach().sum(1))

    hook = network.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            yield kept
    finally:
        hook.remove()
