"""Methods are declarations: a method composes components. Ours stand in baselines/, those of other packages are entry
points of the group ``rosepo_bench.methods``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar, Literal

from rosepo_bench.base.component import Settings, setting
from rosepo_bench.base.compose import kind_of, parts
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.plugins import Kind, Registry, registry
from rosepo_bench.losses.base import Loss
from rosepo_bench.preference.samplers.base import Sampler
from rosepo_bench.preference.smoothings.base import Smoothing
from rosepo_bench.preference.smoothings.fixed import Zero
from rosepo_bench.recommenders.base import Oracle


def _said(default: Any = "") -> Any:
    """A field that describes the method and is no setting."""
    return field(default=default, metadata={"settable": False})


class Method(Settings):
    """A row of the tables. ``about`` describes it, ``paper`` is its source, ``reading`` says what of it is our reading
    of that paper."""

    kind: ClassVar[Kind] = Kind("method", "methods", "rosepo_bench.baselines", declared=True)
    family: ClassVar[str] = ""

    name: str = field(metadata={"settable": False})
    about: str = _said()
    paper: str = _said()
    reading: str = _said()

    def label(self) -> str:
        return f"method.{self.name}"


class Recommender(Method):
    """A model over item ids, without a language model."""

    family = "recommender"

    model: Oracle = setting(about="the model, see `ls oracles`")


class PlainLM(Method):
    """The language model without preference training. ``sft``: ``none``, before SFT; ``once``, after it; ``longer``,
    after as many further steps of SFT as preference training takes: the control for "more training helps"."""

    family = "language_model"

    sft: Literal["none", "once", "longer"] = _said("once")


class Preference(Method):
    """Preference training on top of SFT. ``training`` changes settings of the configuration's ``[preference]``
    section. In each of ``rounds`` the model of the round before is the reference, and the one whose mistakes are
    rejected."""

    family = "preference"

    loss: Loss = setting(about="the loss, see `ls losses`")
    sampler: Sampler = setting(about="which items are rejected, see `ls samplers`")
    smoothing: Smoothing = setting(Zero(), about="ε of each pair, see `ls smoothings`")
    rejected: int = setting(1, ge=1, le=1000, about="rejected items per pair (K)")
    rounds: int = setting(1, ge=1, le=100, about="rounds of preference training")
    training: Mapping[str, Any] = setting(factory=dict, about="changes of the [preference] section for this method")

    def check(self) -> None:
        loss, smoothing = self.loss, self.smoothing
        if self.rejected > 1 and not loss.many:
            raise UserError(f"{self.label()}.rejected = {self.rejected}: loss {loss.label()!r} takes one")
        if smoothing.largest > loss.max_epsilon:
            raise UserError(
                f"{self.label()}: smoothing {smoothing.label()!r} gives ε up to {smoothing.largest:g}, "
                + (
                    f"loss {loss.label()!r} takes at most {loss.max_epsilon:g}: lower it"
                    if loss.max_epsilon
                    else f"loss {loss.label()!r} takes none: set smoothing to 'zero'"
                )
            )


@functools.cache
def methods() -> Registry:
    """All installed methods, by name. The components that they are made of can be named too, without an entry point of
    their own."""
    found = registry(Method)
    if not found.found:
        raise UserError("no methods are installed; install the package itself: pip install -e . --no-build-isolation")
    for name, method in found.found.items():
        for component in parts(method):
            registry(kind_of(component)).add(component.name, type(component), f"method {name}, {found.origin[name]}")
    return found
