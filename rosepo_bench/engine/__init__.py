"""The engine. Its operators (``ops``), the token forest (``forest``) and the head need torch and numpy alone."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rosepo_bench.engine.head import SequenceLogProb

__all__ = ["SequenceLogProb"]


def __getattr__(name: str) -> Any:
    """Imports it when it is asked for: ``rosepo_bench.engine`` itself stays quick and loads no library."""
    if name != "SequenceLogProb":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rosepo_bench.engine.head import SequenceLogProb

    return SequenceLogProb
