"""Methods are declarations: objects of the classes below. Ours and those of third parties are registered in the same
way, as entry points of the group ``rosepo_bench.methods``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rosepo_bench.base.errors import UserError, nearest
from rosepo_bench.base.seeds import digest

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Num

    from rosepo_bench.data.types import Examples
    from rosepo_bench.pipeline.stages import Stage
    from rosepo_bench.pipeline.task import Pipeline
    from rosepo_bench.preference.samplers.sampler import SamplerName

GROUP = "rosepo_bench.methods"


@dataclass(frozen=True)
class Recommender:
    """A method without a language model. ``stages(pipeline)`` returns the stages that it needs, ``scores(pipeline,
    examples)`` its scores of the examples' candidates, higher is better."""

    name: str
    summary: str
    scores: Callable[[Pipeline, Examples], Num[np.ndarray, "n size"]]
    stages: Callable[[Pipeline], tuple[Stage[Any], ...]] = lambda pipeline: ()
    family = "recommender"


@dataclass(frozen=True)
class PlainLM:
    """The language model without preference training: before (``trained=False``) or after SFT."""

    name: str
    summary: str
    trained: bool
    family = "language_model"


@dataclass(frozen=True)
class Preference:
    """Preference training on top of SFT: the sampler of rejected items, ε, and settings that differ from the
    configuration's ``[preference]`` section. ε is ``zero`` (DPO), ``constant`` (``preference.epsilon``) or from the
    ``oracle`` (one per pair)."""

    name: str
    summary: str
    sampler: SamplerName
    epsilon: Literal["zero", "constant", "oracle"]
    settings: Mapping[str, Any] = field(default_factory=dict)
    family = "preference"


Method = Recommender | PlainLM | Preference


def registry() -> dict[str, Method]:
    """All installed methods, by name. Refuses a name that two packages claim."""
    found: dict[str, Method] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            method = entry.load()
        except Exception as error:  # another package's code can fail in any way
            raise UserError(
                f"method {entry.name!r} ({entry.value}, {_distribution(entry)}) cannot be imported: "
                f"{type(error).__name__}: {error}; fix or remove that package"
            ) from error
        if not isinstance(method, Recommender | PlainLM | Preference):
            raise UserError(f"method {entry.name!r} ({entry.value}) is a {type(method).__name__}, not a method")
        if method.name != entry.name:
            raise UserError(f"method {entry.name!r} ({entry.value}) calls itself {method.name!r}")
        if entry.name in found and found[entry.name] != method:
            raise UserError(f"two installed packages declare the method {entry.name!r}")
        found[entry.name] = method
    if not found:
        raise UserError("no methods are installed; install the package itself: pip install -e . --no-build-isolation")
    return found


def origin(name: str) -> list[str]:
    """Package, version and module hash of a method's declaration; part of the key, as they can change results."""
    found = []
    for entry in entry_points(group=GROUP, name=name):
        source = getattr(sys.modules.get(entry.module), "__file__", None)
        code = Path(source).read_bytes() if source else b""
        found += [_distribution(entry), digest(code)]
    return found


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "no package"


def select(names: list[str]) -> list[Method]:
    """The methods of these names, in this order. Refuses unknown and repeated names."""
    known = registry()
    for name in names:
        if name not in known:
            raise UserError(f"unknown method {name!r}; {nearest(name, known)}")
        if names.count(name) > 1:
            raise UserError(f"method {name!r} is listed twice")
    return [known[name] for name in names]
