"""Calls of every compiled operator with random shapes, dtypes, values and strides, right and wrong. Each gives what the
reference gives in float64, or raises a sentence.

The operators are called through Python's checks (``ops.…``) and without them (``torch.ops.rosepo.…``), where the
checks in C++ stand alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import forest_calls
import torch
from chance import Chance, finite, spoiled
from torch import Tensor

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine import ops
from rosepo_bench.losses import formulas
from rosepo_bench.losses.arguments import LossArguments, as_tensors

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
Arguments = dict[str, Any]


class FoundError(AssertionError):
    """A call that ended as none may."""


@dataclass(frozen=True)
class Operator:
    """How to draw its arguments, to call it with and without Python's checks (the result comes first, then gradients),
    and what the reference gives: results, and the error that rounding explains in each; None where it overflows."""

    draw: Callable[[Chance], Arguments]
    bare: Callable[[Arguments], Sequence[Tensor]]
    checked: Callable[[Arguments], Sequence[Tensor]] | None = None
    wanted: Callable[[Arguments], list[tuple[Tensor, float]] | None] | None = None


def shake(name: str, seed: int, spoils: int = 15) -> int:
    """One draw of an operator: called as drawn, then spoiled ``spoils`` times, every fifth of them compared with the
    reference; the number of calls. FoundError: one of them ended as none may."""
    operator, chance = OPERATORS[name], Chance(seed)
    arguments = operator.draw(chance)
    _try(operator, arguments, checked=operator.checked is not None, right=True, compared=True)
    for turn in range(spoils):
        worse = spoiled(chance, arguments, 1 if chance.under(0.7) else 2)
        checked = operator.checked is not None and chance.under(0.5)
        # Without Python's checks torch takes a scalar tensor for a number.
        alike = checked or all(isinstance(worse[key], Tensor) == isinstance(arguments[key], Tensor) for key in worse)
        _try(operator, worse, checked=checked, right=False, compared=alike and turn % 5 == 0)
    return 1 + spoils


def _try(operator: Operator, a: Arguments, *, checked: bool, right: bool, compared: bool) -> None:
    try:
        found = operator.checked(a) if checked and operator.checked else operator.bare(a)
    except Exception as error:
        if problem := _problem(error, checked, right):
            raise FoundError(f"{problem}: {type(error).__name__}: {error} for {told(a)}") from error
        return
    if operator.wanted is None or not compared or not finite(list(a.values())):
        return
    try:
        wanted = operator.wanted(a)
    except UserError as error:
        if not checked:
            return
        raise FoundError(f"accepted, though the reference refuses it: {error} for {told(a)}") from error
    for place, (one, (other, bound)) in enumerate(zip(found, wanted or (), strict=False)):
        if one.shape != other.shape:
            raise FoundError(f"result {place} has shape {list(one.shape)} for {list(other.shape)}: {told(a)}")
        off = float((one.detach().double() - other).abs().max()) if one.numel() else 0.0
        if not off <= bound:
            raise FoundError(f"result {place} is off by {off}, of at most {bound}, for {told(a)}")


def _problem(error: Exception, checked: bool, right: bool) -> str:
    """What is wrong with a refusal; empty where nothing is. A UserError is one sentence; torch and Python have errors
    of their own for what is not even a number, or cannot be allocated."""
    sentence = str(error)
    if right and not ("not finite" in sentence or "finite loss" in sentence):
        return "refused though right"
    if len(sentence) < 10 or (checked and "\n" in sentence and isinstance(error, UserError)):
        return "not one sentence"
    return ""


def told(arguments: Arguments) -> str:
    """The arguments in a line: shapes, dtypes and strides of tensors, and what is not finite in them."""
    return "; ".join(f"{name}={_told(value)}" for name, value in arguments.items())


def _told(value: Any) -> str:
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.device.type == "meta":
        return repr(value)
    if value.numel() <= 8:
        return f"{value.tolist()} {value.dtype} {list(value.stride())}"
    return f"{list(value.shape)} {value.dtype} {list(value.stride())}"


def _of(dtype: torch.dtype) -> float:
    """Rounding of the dtype; numbers below its smallest normal one lose more, which a test of values adds."""
    return torch.finfo(dtype).eps


def _most(x: Tensor) -> float:
    return float(x.abs().max()) if x.numel() else 0.0


def _leaves(*tensors: Any) -> list[Any]:
    return [x.detach().requires_grad_(x.is_floating_point()) if isinstance(x, Tensor) else x for x in tensors]


# ---- sequence_logprob

_TRIPLES = ("targets", "row_of_target", "sequence_of_target")


def _draw_logprob(chance: Chance) -> Arguments:
    dtype = chance.choice(DTYPES)
    rows, vocabulary, width, sequences = (chance.size(most) for most in (5, 9, 9, 4))
    count = chance.size(8) if rows and vocabulary and sequences else 0
    return {
        "hidden": chance.normal(rows, width, dtype=dtype),
        "weight": chance.normal(vocabulary, width, dtype=dtype),
        "bias": chance.normal(vocabulary, dtype=dtype) if chance.under(0.3) else None,
        "targets": chance.index(count, vocabulary),
        "row_of_target": chance.index(count, rows),
        "sequence_of_target": chance.index(count, sequences),
        "num_sequences": sequences,
        "logit_scale": chance.choice((1.0, 1.0, 0.5, 1e-6, 3.0)),
        "soft_cap": chance.choice((0.0, 0.0, 5.0, 1e-6, 1e6)),
        "chunk_rows": chance.choice((0, 1, 2, 7)),
        "memory_budget": chance.choice((0, 1 << 20)),
        "grad": chance.normal(sequences, dtype=torch.float64 if dtype == torch.float64 else torch.float32),
    }


def _logprob(a: Arguments) -> list[Tensor]:
    names = ("hidden", "weight", "bias")
    leaves = _leaves(*(a[name] for name in names))
    given = {name: value for name, value in a.items() if name not in (*names, "grad")}
    logps = ops.sequence_logprob(leaves[0], leaves[1], bias=leaves[2], **given, impl="cpp")
    if not isinstance(a["grad"], Tensor) or a["grad"].shape != logps.shape or a["grad"].dtype != logps.dtype:
        return [logps.detach()]
    learned = [x for x in leaves if x is not None]
    return [logps.detach(), *torch.autograd.grad(logps, learned, a["grad"])]


def _logprob_bare(a: Arguments) -> Sequence[Tensor]:
    given = [a[name] for name in ("hidden", "weight", "bias", *_TRIPLES, "num_sequences", "logit_scale", "soft_cap")]
    found = torch.ops.rosepo.sequence_logprob(*given, a["chunk_rows"], a["memory_budget"], True, True)
    return found[:1] if bool(torch.isfinite(found[0]).all()) else []


def _logprob_wanted(a: Arguments) -> list[tuple[Tensor, float]] | None:
    dtype = a["hidden"].dtype
    hidden, weight, bias = (None if x is None else x.detach().double() for x in (a["hidden"], a["weight"], a["bias"]))
    leaves = _leaves(hidden, weight, bias)
    given = {name: a[name] for name in (*_TRIPLES, "num_sequences", "logit_scale", "soft_cap")}
    logps = ops.sequence_logprob(leaves[0], leaves[1], bias=leaves[2], **given, impl="reference")
    terms = hidden.abs() @ weight.abs().T + (0 if bias is None else bias.abs())
    x = _most(terms) * a["logit_scale"]
    longest = int(torch.bincount(a["sequence_of_target"], minlength=1).max())
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    if max(_most(terms), x) > torch.finfo(dtype).max / 8 or x * 8 > torch.finfo(wide).max:
        return None
    rounding = 8 * _of(dtype) * (x + math.log(len(weight) + 1) + 1) + 64 * torch.finfo(dtype).tiny
    results = [(logps.detach(), longest * rounding)]
    grad = a["grad"]
    if not isinstance(grad, Tensor) or grad.shape != logps.shape or grad.dtype != wide:
        return results
    c = a["logit_scale"] * float(grad.detach().abs().double().sum()) * max(1, len(a["targets"]))
    if max(c, c * _most(weight), c * _most(hidden)) > torch.finfo(dtype).max / 8:
        return results
    learned = [one for one in leaves if one is not None]
    exact = torch.autograd.grad(logps, learned, grad.detach().double())
    sizes = (_most(weight), _most(hidden), 1.0)
    small = 64 * torch.finfo(dtype).tiny * (1 + len(a["targets"])) * (1 + len(weight) + len(hidden))
    loss = min(1.0, 4 * rounding * (1 + (1 / a["soft_cap"] if a["soft_cap"] else 0)))  # the cap's slope is steep
    return results + [(g, 4 * c * size * loss + small * (1 + size)) for g, size in zip(exact, sizes, strict=False)]


# ---- the backward pass of sequence_logprob, by hand


def _draw_logprob_backward(chance: Chance) -> Arguments:
    a = _draw_logprob(chance)
    given = [a[name] for name in ("hidden", "weight", "bias", *_TRIPLES, "num_sequences", "logit_scale", "soft_cap")]
    found = torch.ops.rosepo.sequence_logprob(*given, a["chunk_rows"], a["memory_budget"], True, True)
    names = ("u", "kept", "begin", "order", "slope", "logp", "lse")
    first = {name: a[name] for name in ("grad", "hidden", "weight", "bias", *_TRIPLES)}
    last = {name: a[name] for name in ("logit_scale", "soft_cap", "chunk_rows")}
    wants = {name: chance.under(0.8) for name in ("hidden_gradient", "weight_gradient", "bias_gradient")}
    return {**first, **dict(zip(names, found[1:], strict=True)), **last, **wants}


def _logprob_backward(a: Arguments) -> Sequence[Tensor]:
    return list(torch.ops.rosepo.sequence_logprob_backward(*a.values()))


# ---- preference_loss


def _draw_loss(chance: Chance) -> Arguments:
    name = chance.choice(sorted(formulas.LOSSES))
    loss = formulas.LOSSES[name]
    dtype = chance.choice((torch.float32, torch.float64))
    pairs, k = chance.size(5), chance.randint(1, 4) if loss.many else 1
    flat = k == 1 and chance.under(0.4)

    def logps(*size: int) -> Tensor:
        return chance.uniform(*size, low=-30.0, high=-1e-3, dtype=dtype)

    table = (pairs,) if flat else (pairs, k)
    epsilon = chance.choice(((), (pairs,), table))
    drawn: Arguments = {
        "chosen": logps(pairs),
        "rejected": logps(*table),
        "reference_chosen": logps(pairs),
        "reference_rejected": logps(*table),
        "chosen_tokens": chance.index(pairs, 9) + 1,
        "rejected_tokens": torch.randint(1, 9, table, generator=chance.tensors),
        "epsilon": chance.uniform(*epsilon, low=0.0, high=0.4, dtype=dtype),
        "beta": 0.7 if chance.under(0.5) else chance.uniform(pairs, low=0.01, high=3.0, dtype=dtype),
        "weight": chance.uniform(pairs, low=0.0, high=2.0, dtype=dtype) if chance.under(0.5) else None,
        "kl": chance.choice((0.0, 0.5, torch.tensor(0.5, dtype=dtype))),
        "gamma": 0.5,
        "sft_weight": 0.5,
        "desirable": 1.0,
        "undesirable": 1.0,
    }
    used = {"chosen", "rejected", "beta", "weight"} | loss.needs | loss.takes
    return {**{key: value for key, value in drawn.items() if key in used}, "loss": name}


def _loss_arguments(a: Arguments) -> LossArguments:
    return LossArguments(**{name: a.get(name) for name in LossArguments._fields})


def _loss(a: Arguments) -> list[Tensor]:
    chosen, rejected = _leaves(a["chosen"], a["rejected"])
    rest = {name: value for name, value in a.items() if name not in ("chosen", "rejected")}
    found = ops.preference_loss(chosen, rejected, **rest, impl="cpp")
    return [found.detach(), *torch.autograd.grad(found.sum(), [chosen, rejected])]


def _loss_bare(a: Arguments) -> Sequence[Tensor]:
    given = _loss_arguments(a)
    if isinstance(given.chosen, Tensor) and isinstance(given.rejected, Tensor):
        given = as_tensors(given)
    return list(torch.ops.rosepo.preference_loss(*given)[:1])


def _loss_wanted(a: Arguments) -> list[tuple[Tensor, float]] | None:
    if not len(a["chosen"]):  # then the compiled operator reads no value
        return None
    double = {name: _doubled(value) for name, value in a.items()}
    chosen, rejected = _leaves(double.pop("chosen"), double.pop("rejected"))
    found = ops.preference_loss(chosen, rejected, **double, impl="reference")
    exact = [found.detach(), *torch.autograd.grad(found.sum(), [chosen, rejected])]
    floats = [x for x in (chosen, rejected, *double.values()) if isinstance(x, Tensor) and x.is_floating_point()]
    size = max([1.0, *(_most(x.detach()) for x in floats)])
    rounding = _of(a["chosen"].dtype) + 500 * _of(torch.float64)
    return [(x, 2 * rounding * _most(x) + 1e-10 * min(size, 1e70) ** 4 + 1e-30) for x in exact]


def _doubled(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().double() if value.is_floating_point() else value
    return float(value) if isinstance(value, int) else value


# ---- forest_attention


def _draw_attention(chance: Chance) -> Arguments:
    dtype = chance.choice(DTYPES)
    tokens, width, groups = chance.size(9), max(1, chance.size(9)), chance.randint(1, 2)
    heads = groups * chance.randint(1, 2)
    depth: list[int] = []
    for _ in range(tokens):
        last = depth[-1] if depth else -1
        depth.append(chance.choice((0, last + 1, last + 1, chance.randint(0, last + 1))))
    end = [next((j for j in range(i + 1, tokens) if depth[j] <= depth[i]), tokens) for i in range(tokens)]
    return {
        "query": chance.normal(heads, tokens, width, dtype=dtype),
        "key": chance.normal(groups, tokens, width, dtype=dtype),
        "value": chance.normal(groups, tokens, width, dtype=dtype),
        "end": chance.stridden(torch.tensor(end, dtype=torch.int64), most=0.9),
        "depth": torch.tensor(depth, dtype=torch.int64),
        "window": chance.choice((0, 0, 1, 2, 5, 2**62)),
        "scaling": chance.choice((0.3, 1.0, 0.0, -0.5)),
        "grad": chance.normal(heads, tokens, width, dtype=dtype),
    }


def _attention(a: Arguments) -> list[Tensor]:
    leaves = _leaves(a["query"], a["key"], a["value"])
    given = {name: a[name] for name in ("depth", "window", "scaling")}
    found = ops.forest_attention(*leaves, a["end"], **given, impl="cpp")
    if not isinstance(a["grad"], Tensor) or a["grad"].shape != found.shape or a["grad"].dtype != found.dtype:
        return [found.detach()]
    return [found.detach(), *torch.autograd.grad(found, leaves, a["grad"])]


def _attention_bare(a: Arguments) -> Sequence[Tensor]:
    return list(torch.ops.rosepo.forest_attention(*(value for name, value in a.items() if name != "grad"))[:1])


def _attention_wanted(a: Arguments) -> list[tuple[Tensor, float]] | None:
    dtype = a["query"].dtype
    doubled = [a[name].detach().double() for name in ("query", "key", "value")]
    leaves = _leaves(*doubled)
    given = {name: a[name] for name in ("depth", "window", "scaling")}
    found = ops.forest_attention(*leaves, a["end"], **given, impl="reference")
    query, key, value = map(_most, doubled)
    scaling = a["query"].shape[2] ** -0.5 if a["scaling"] is None else abs(float(a["scaling"]))
    score = query * key * a["query"].shape[2]
    wide = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32)
    if max(score, score * scaling, value, query * scaling, scaling) * 64 > wide.max:
        return None
    rounding = min(1.0, 8 * _of(dtype) + 8 * wide.eps * score * scaling)
    small = 64 * torch.finfo(dtype).tiny
    results = [(found.detach(), 2 * rounding * value + small)]
    grad = a["grad"]
    if not isinstance(grad, Tensor) or grad.shape != found.shape or grad.dtype != dtype:
        return results
    tokens, times = a["query"].shape[1], len(a["query"]) // len(a["key"])
    most = _most(grad.detach().double()) * a["query"].shape[2]
    each = max(1, tokens) * times * most
    sizes = [each * value * scaling * key, each * value * scaling * query, each]
    products = each * math.prod(max(1.0, x) for x in (value, scaling, key, query))
    if not products < wide.max**0.5 or not max(sizes) < torch.finfo(dtype).max / 64:
        return results
    exact = torch.autograd.grad(found, leaves, grad.detach().double())
    lost = small * (1 + tokens) ** 2 * times * (1 + max(query, key) * scaling) * (1 + a["query"].shape[2])
    return results + [(g, 4 * rounding * size + lost) for g, size in zip(exact, sizes, strict=True)]


def _draw_attention_backward(chance: Chance) -> Arguments:
    a = _draw_attention(chance)
    forward = {name: value for name, value in a.items() if name != "grad"}
    out, lse = torch.ops.rosepo.forest_attention(*forward.values())
    first = {"grad": a["grad"], **{name: a[name] for name in ("query", "key", "value", "end", "depth")}}
    return {**first, "out": out, "lse": lse, "window": a["window"], "scaling": a["scaling"]}


def _attention_backward(a: Arguments) -> Sequence[Tensor]:
    return list(torch.ops.rosepo.forest_attention_backward(*a.values()))


OPERATORS = {
    "sequence_logprob": Operator(_draw_logprob, _logprob_bare, _logprob, _logprob_wanted),
    "sequence_logprob_backward": Operator(_draw_logprob_backward, _logprob_backward),
    "preference_loss": Operator(_draw_loss, _loss_bare, _loss, _loss_wanted),
    "forest_attention": Operator(_draw_attention, _attention_bare, _attention, _attention_wanted),
    "forest_attention_backward": Operator(_draw_attention_backward, _attention_backward),
}
SHAKES: dict[str, Callable[[int], int]] = {
    **{name: partial(shake, name) for name in OPERATORS},
    "build": forest_calls.shake_build,
    "collate": forest_calls.shake_collate,
}
