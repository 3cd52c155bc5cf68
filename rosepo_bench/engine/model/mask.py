"""The mask that carries a forest through transformers to our own attention, and to no other."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.ops import attention_reference as plain

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64


class ForestMask(Tensor):
    """An empty tensor ``[0, 0, 0, 0]``, as transformers passes on a tensor with four axes unchanged; what our attention
    needs are attributes: ``end`` and ``depth`` of the tokens, the ``window`` of windowed layers (0: none), and whether
    the compiled operator runs.

    Any operation on it but reading its shape and the like raises UserError, so that no other attention can add it to
    its scores.
    """

    end: Int64[Tensor, " T"]
    depth: Int64[Tensor, " T"]
    window: int
    compiled: bool

    @staticmethod
    def of(end: Int64[Tensor, " T"], depth: Int64[Tensor, " T"], window: int, compiled: bool) -> ForestMask:
        mask = Tensor._make_subclass(ForestMask, end.new_empty(0, 0, 0, 0))
        mask.end, mask.depth, mask.window, mask.compiled = end, depth, window, compiled
        return mask

    @cached_property
    def trees(self) -> list[Bool[Tensor, "t t"]]:
        """A dense mask for each tree, made once for all layers."""
        return plain.tree_masks(self.end, self.depth, self.window)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__name__", "") in ("__get__", "dim", "numel", "size"):  # __get__: shape, device and the like
            return super().__torch_function__(func, types, args, kwargs or {})
        raise UserError(
            "the mask of a token forest reached another attention than the forest's: the model's attention "
            "implementation was changed during a pass or before its backward pass; make such changes between steps"
        )
