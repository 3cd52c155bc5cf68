"""From what is handed in to the causal LM inside, its body and its head, which the forest calls one by one.

What changes the numbers or gradients of the model's own ``forward`` without being called then is refused by name.
Wrappers are known by the names of their classes, so that none of their packages is imported.
"""

from __future__ import annotations

from typing import Any

from rosepo_bench.base.errors import UserError

# What each wrapper needs that the forest, which calls body and head, would leave out.
WRAPPERS = {
    "DistributedDataParallel": "its gradients would not be averaged over the processes: pass its .module, and average "
    "the gradients after the backward pass",
    "DataParallel": "the forest runs on one device: pass its .module",
    "FullyShardedDataParallel": "its weights are gathered in its own forward alone: pass a model that is not sharded",
    "FSDPModule": "its weights are gathered in its own forward alone: pass a model that is not sharded",
    "DeepSpeedEngine": "the forest would pass it by: pass its .module, and average the gradients after the backward "
    "pass",
}

# The adapters of peft that change layers, each token apart; tests show for each that a forest equals separate rows.
ADAPTERS = (
    "ADALORA",
    "HRA",
    "IA3",
    "LN_TUNING",
    "LOHA",
    "LOKR",
    "LORA",
    "OFT",
    "RANDLORA",
    "TRAINABLE_TOKENS",
    "VERA",
)


def unwrap(network: Any) -> Any:
    """The causal LM of transformers inside ``network``, a model that torch.compile or peft may have wrapped. Raises
    UserError for anything else, and for a model whose class has a ``forward`` of its own."""
    while True:
        names = _names(network)
        if "OptimizedModule" in names:
            network = network._orig_mod
        elif "PeftModel" in names:
            _refuse_adapters(network.peft_config)
            network = network.get_base_model()
        else:
            break
    for part in network.modules():
        for name in _names(part) & WRAPPERS.keys():
            raise UserError(f"the model, or a layer of it, is wrapped in {name}: {WRAPPERS[name]}")
    if "PreTrainedModel" not in names:
        raise UserError(f"network is a {_full_name(type(network))}: want a causal LM of transformers")
    of = next(kind for kind in type(network).__mro__ if "forward" in vars(kind))
    if not of.__module__.startswith("transformers.models."):
        raise UserError(
            f"{_full_name(of)} has a forward of its own, which the forest does not call (it calls body and head): use "
            "the class of transformers"
        )
    for name, parameter in network.named_parameters():
        if parameter.is_meta:
            raise UserError(
                f"parameter {name} is on the meta device: its weights are not loaded, or are offloaded (as by "
                "accelerate's cpu_offload); load the whole model on one device"
            )
    refuse_changed(network, "the model")
    return network


def head_of(network: Any) -> Any:
    """The head of ``network`` as it is now; the copy that peft trains where the head is one of its
    ``modules_to_save``. Raises UserError where there is none or calling it would do more than the layer itself."""
    head = network.get_output_embeddings()
    if head is None:
        raise UserError(f"a {type(network).__name__} has no head that gives logits: want a causal LM of transformers")
    refuse_changed(head, "the model's head")
    if "ModulesToSaveWrapper" in _names(head):
        active = None if head.disable_adapters else next(iter(head.active_adapters), None)
        head = head.modules_to_save[active] if active else head.original_module
        refuse_changed(head, "the model's head")
    return head


def refuse_changed(module: Any, name: str) -> None:
    """Raises UserError for hooks on ``module``, or a ``forward`` that was put on the object: a forest does not run
    them."""
    if "_hf_hook" in vars(module):
        what = "hooks of accelerate, as by a device_map over several devices: load the model on one device"
    elif module._forward_hooks or module._forward_pre_hooks:
        what = "forward hooks: remove them"
    elif module._backward_hooks or module._backward_pre_hooks:
        what = "backward hooks: remove them, or put them on its parameters"
    elif "forward" in vars(module):
        what = "a forward put on the object, as by accelerate's prepare: pass the model as it was before"
    else:
        return
    raise UserError(
        f"{name}, a {type(module).__name__}, has {what} (the forest reads its weights and does not call it)"
    )


def _refuse_adapters(configs: dict[str, Any]) -> None:
    for name, config in configs.items():
        kind = getattr(config.peft_type, "value", config.peft_type)
        if getattr(config, "is_prompt_learning", False):
            raise UserError(
                f"adapter {name!r} is of kind {kind}, which puts tokens or keys of its own before every sequence: the "
                "forest has no place for them; use LoRA"
            )
        if kind not in ADAPTERS:
            raise UserError(f"adapter {name!r} is of kind {kind}: want one of {', '.join(ADAPTERS)}")
        if getattr(config, "alora_invocation_tokens", None):
            raise UserError(
                f"adapter {name!r} is an activated LoRA, which begins somewhere in a sequence: use LoRA without "
                "alora_invocation_tokens"
            )


def _names(module: Any) -> set[str]:
    return {kind.__name__ for kind in type(module).__mro__}


def _full_name(kind: type) -> str:
    return f"{kind.__name__} ({kind.__module__})"
