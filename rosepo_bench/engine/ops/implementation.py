"""Which implementation of an operator runs, and what else all compiled operators of the engine share.

``impl`` is ``auto`` (the compiled operator of the tensors' device), ``cpp``, ``cuda`` or ``reference``
(plain torch operations, any device). Nothing falls back: what an implementation cannot do is an error that
names one that can.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from rosepo_bench.base.errors import UserError, nearest
from rosepo_bench.engine.ops import library

IMPLEMENTATIONS = ("auto", "cpp", "cuda", "reference")
_COMPILED_FOR = {"cpu": "cpp", "cuda": "cuda"}


def live(impl: str, device: str | torch.device) -> str:
    """Which implementation runs for ``impl`` on ``device``: ``cpp``, ``cuda`` or ``reference``. Raises
    :class:`UserError` where none does."""
    if impl not in IMPLEMENTATIONS:
        raise UserError(f"impl is {impl!r}: {nearest(impl, IMPLEMENTATIONS)}")
    if impl == "reference":
        return impl
    kind = torch.device(device).type
    compiled = _COMPILED_FOR.get(kind)
    if compiled is None:
        raise UserError(f"impl is {impl!r}: no operator is compiled for {kind}; choose impl='reference'")
    if impl not in ("auto", compiled):
        raise UserError(f"impl is {impl!r}, the tensors are on {kind}: choose impl={compiled!r} or 'auto'")
    if _PROBLEM is not None:
        raise UserError(f"impl is {impl!r}: {_PROBLEM}; or choose impl='reference'")
    if compiled == "cuda" and not _HAS_CUDA:
        raise UserError(
            f"impl is {impl!r}: the library was built without CUDA; rebuild it with ROSEPO_CUDA=1, "
            "or choose impl='reference'"
        )
    return compiled


def for_people(error: RuntimeError, operator: str) -> Exception:
    """A refusal by ``operator`` (``"<operator>: <sentence>"``, see csrc/torch_glue.h) as a :class:`UserError`; other
    errors unchanged."""
    text = str(error)
    if not text.startswith(f"{operator}: "):
        return error
    return UserError(text.removeprefix(f"{operator}: ").partition("\n")[0])


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """What a linear layer or torch's own attention would make of them under autocast: each floating-point tensor but
    float64 in autocast's dtype, whatever dtypes the others have. Anything else stays as it is, for later checks."""
    return tuple(_cast(x) for x in tensors)


def _cast(x: Tensor) -> Tensor:
    kind = x.device.type if isinstance(x, Tensor) else "meta"
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return x
    if not x.is_floating_point() or x.dtype == torch.float64:
        return x
    return x.to(torch.get_autocast_dtype(kind))


def refuse_tangents(instead: str = "impl='reference'", /, **arguments: Tensor | None) -> None:
    """Raises UserError for a forward-mode derivative, which torch would silently drop at a compiled operator.
    ``instead``: what to choose for it."""
    if torch.compiler.is_compiling():
        return
    for name, value in arguments.items():
        if value is not None and forward_ad.unpack_dual(value).tangent is not None:
            raise UserError(f"{name} has a forward-mode derivative (jvp): choose {instead}")


def raise_errors(device: str | torch.device | None = None) -> None:
    """Raises :class:`UserError` for the first bad value that a compiled operator met on ``device`` (None: the current
    CUDA device) since the last call, and clears it.

    Waits for the device's current stream; a training loop calls it once a step. On the CPU it does nothing, as the
    operators raise at once.
    """
    if not (_HAS_CUDA and torch.cuda.is_available()):
        return
    place = torch.device("cuda" if device is None else device)
    if place.type != "cuda":
        return
    if torch.cuda.is_current_stream_capturing():
        raise UserError("raise_errors waits for the device, which a CUDA graph cannot do: call it after the replay")
    index = torch.cuda.current_device() if place.index is None else place.index
    if sentence := torch.ops.rosepo.take_error(index):
        raise UserError(sentence)


def register(
    operator: str,
    *,
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., None] | None = None,
) -> None:
    """Registers the fake kernel of ``operator`` and its gradient, if it has one. Without the library it does nothing;
    :func:`live` then says why."""
    if _PROBLEM is None:
        torch.library.register_fake(f"rosepo::{operator}", fake)
        if backward is not None:
            torch.library.register_autograd(f"rosepo::{operator}", backward, setup_context=setup_context)


def _load() -> tuple[bool, str | None]:
    """(CUDA is compiled in, why the operators are missing). Called at import, as torch.compile cannot trace a load."""
    try:
        return library.load()["cuda"] != "none", None
    except UserError as error:
        return False, str(error)


_HAS_CUDA, _PROBLEM = _load()
