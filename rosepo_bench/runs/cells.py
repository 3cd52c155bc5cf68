"""A cell is a data set, a method and a seed: the stages that it needs, and its key."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rosepo_bench.base import records
from rosepo_bench.base.config import PreferenceConfig
from rosepo_bench.base.configure import validate
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import digest
from rosepo_bench.pipeline.alignment import aligned
from rosepo_bench.pipeline.language import Language
from rosepo_bench.pipeline.pairing import Pairing
from rosepo_bench.pipeline.probe import Probe
from rosepo_bench.pipeline.smoothing import Smoothing
from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.pipeline.task import Pipeline, Scored, Trained
from rosepo_bench.runs.methods import Method, PlainLM, Preference, Recommender, origin

ROBUST_MAX = 0.45  # above it the robust form's weights exceed 10


def preference_settings(method: Preference, common: PreferenceConfig, own: dict[str, Any]) -> PreferenceConfig:
    """The settings of one method: the common ones, changed by its declaration, then by ``[method.NAME]``. UserError for
    unknown keys, values out of range, and settings that have no effect on this method."""
    idle = _idle_settings(method)
    for key in (*method.settings, *own):
        if key in idle:
            raise UserError(f"method.{method.name}: {key!r} would have no effect on it ({idle[key]}); leave it out")
    settings = validate({**common.model_dump(), **method.settings, **own}, PreferenceConfig, f"method.{method.name}.")
    if settings.form == "robust":
        worst = {"oracle": settings.epsilon_max, "constant": settings.epsilon, "zero": 0.0}[method.epsilon]
        if worst > ROBUST_MAX:
            raise UserError(
                f"method {method.name}: the robust form takes ε up to {ROBUST_MAX}, the settings allow {worst}; lower "
                f"{'epsilon_max' if method.epsilon == 'oracle' else 'epsilon'}"
            )
    return settings


def _idle_settings(method: Preference) -> dict[str, str]:
    """Keys of the preference section that this method does not read, and why."""
    own = {"semantic": "semantic_anchor semantic_temperature", "popularity": "popularity_exponent"}
    own["self_hard"] = "self_hard_pool"
    idle = {
        key: f"its sampler is {method.sampler}"
        for sampler, keys in own.items()
        if method.sampler not in (sampler, "mixed")
        for key in keys.split()
    }
    if method.epsilon != "constant":
        idle["epsilon"] = f"its ε is {method.epsilon}"
    if method.epsilon != "oracle":
        idle["epsilon_max"] = f"its ε is {method.epsilon}"
    if method.epsilon == "zero":
        idle["form"] = "with ε = 0 both forms are DPO"
    return idle


@dataclass(frozen=True)
class Cell:
    """One cell. Everything in its record comes from stages."""

    pipeline: Pipeline
    language: Language
    method: Method

    @property
    def name(self) -> str:
        return f"{self.pipeline.name}/{self.method.name}/seed{self.pipeline.seed}"

    @cached_property
    def pairing(self) -> Pairing:
        assert isinstance(self.method, Preference)
        config = self.pipeline.config
        own = config.method.get(self.method.name, {})
        settings = preference_settings(self.method, config.preference, own)
        return Pairing(self.language, self.method.sampler, settings)

    @cached_property
    def smoothing(self) -> Smoothing:
        return Smoothing(self.pairing)

    @cached_property
    def probe(self) -> Probe:
        return Probe(self.smoothing)

    @cached_property
    def trained(self) -> Stage[Trained] | None:
        """The training stage whose model is scored; None for methods without one."""
        if isinstance(self.method, PlainLM):
            return self.language.sft if self.method.trained else None
        if isinstance(self.method, Preference):
            return aligned(self.smoothing, self.method.name, self.method.epsilon)
        return None

    @cached_property
    def scored(self) -> Stage[Scored] | None:
        """The language model's scores; None for methods without a language model."""
        if isinstance(self.method, Recommender):
            return None
        return self.language.scores(self.method.name, self.trained)

    @cached_property
    def stages(self) -> tuple[Stage[Any], ...]:
        """The stages needed for the record; the key depends on them."""
        test = self.pipeline.examples_stage("test")
        if isinstance(self.method, Recommender):
            return (test, *self.method.stages(self.pipeline))
        assert self.scored is not None
        if not isinstance(self.method, Preference):
            return (test, self.scored)
        pairing, sft = self.pairing, self.language.scores("sft", self.language.sft)
        assert self.trained is not None
        after = pairing.pair_logps(self.method.name, self.trained, ("validation",))
        judged = (self.smoothing.judged, self.probe.stage) if self.method.epsilon == "oracle" else ()
        return (test, self.scored, sft, after, *judged)

    @cached_property
    def key(self) -> str:
        """Hash of all that can change the record."""
        named = [self.pipeline.name, self.method.name, origin(self.method.name), self.pipeline.seed]
        stages = [stage.key for stage in self.stages]
        return digest(records.SCHEMA, self.pipeline.config.profile, self.protocol, named, stages)

    @property
    def protocol(self) -> dict[str, Any]:
        """How candidates are ranked; part of every record."""
        config = self.pipeline.config
        return {
            "name": "candidates",
            "size": self.pipeline.dataset_config.candidates,
            "score": config.scoring.score,
        }

    @property
    def folder(self) -> Path:
        """The folder of its record, whether it exists or not."""
        pipeline = self.pipeline
        return records.record_folder(pipeline.stages.out, pipeline.name, self.method.name, pipeline.seed, self.key)
