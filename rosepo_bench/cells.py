"""A cell is a data set, a method and a seed: which stages it needs, its key, and the record it writes."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rosepo_bench import environment, store
from rosepo_bench.config import PreferenceConfig
from rosepo_bench.data import candidates, sequences
from rosepo_bench.data.types import FloatArray
from rosepo_bench.engine import model as models
from rosepo_bench.engine import ops
from rosepo_bench.engine.memory import PeakMemory
from rosepo_bench.errors import UserError, nearest
from rosepo_bench.evaluation import metrics, statistics
from rosepo_bench.methods import Method, PlainLM, Preference, Recommender
from rosepo_bench.pipeline.alignment import aligned
from rosepo_bench.pipeline.base import Pipeline, Scored, Trained
from rosepo_bench.pipeline.language import Language
from rosepo_bench.pipeline.pairing import Pairing
from rosepo_bench.pipeline.smoothing import Smoothing
from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.preference import oracle
from rosepo_bench.seeds import digest

ROBUST_MAX = 0.45  # beyond it the robust form's weights pass 10


def preference_settings(method: Preference, common: PreferenceConfig, own: dict[str, Any]) -> PreferenceConfig:
    """The settings of one method: the common ones, what its declaration changes, what ``[method.NAME]`` changes."""
    table = {**common.model_dump(), **method.settings, **own}
    for key in table:
        if key not in PreferenceConfig.model_fields:
            raise UserError(f"method.{method.name}: unknown key {key!r}; {nearest(key, PreferenceConfig.model_fields)}")
    settings = _validated(method.name, table)
    if settings.form == "robust":
        worst = {"oracle": settings.epsilon_max, "constant": settings.epsilon, "zero": 0.0}[method.epsilon]
        if worst > ROBUST_MAX:
            raise UserError(
                f"method {method.name}: the robust form takes ε up to {ROBUST_MAX}, the settings allow {worst}; lower "
                f"{'epsilon_max' if method.epsilon == 'oracle' else 'epsilon'}"
            )
    return settings


def _validated(name: str, table: dict[str, Any]) -> PreferenceConfig:
    from pydantic import ValidationError

    try:
        return PreferenceConfig.model_validate(table)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        raise UserError(f"method.{name}.{key} = {problem['input']!r}: {problem['msg']}") from None


@dataclass(frozen=True)
class Cell:
    """One cell. Everything it reads comes from stages; running it adds its record."""

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
    def trained(self) -> Stage[Trained] | None:
        """The training that the method's scores come from; None without one."""
        if isinstance(self.method, PlainLM):
            return self.language.sft if self.method.trained else None
        if isinstance(self.method, Preference):
            return aligned(self.smoothing, self.method.name, self.method.epsilon)
        return None

    @cached_property
    def scored(self) -> Stage[Scored] | None:
        """The language model's scores; None for other methods."""
        if isinstance(self.method, Recommender):
            return None
        return self.language.scores(self.method.name, self.trained)

    @cached_property
    def stages(self) -> tuple[Stage[Any], ...]:
        """What must be done before the record can be written; also what makes the key."""
        test = self.pipeline.examples_stage("test")
        if isinstance(self.method, Recommender):
            return (test, *self.method.stages(self.pipeline))
        assert self.scored is not None
        if not isinstance(self.method, Preference):
            return (test, self.scored)
        pairing, sft = self.pairing, self.language.scores("sft", self.language.sft)
        assert self.trained is not None
        after = pairing.pair_logps(self.method.name, self.trained, ("validation",))
        judged = (self.smoothing.judged,) if self.method.epsilon == "oracle" else ()
        return (test, self.scored, sft, after, *judged)

    @cached_property
    def key(self) -> str:
        """Hash of all that can change the record."""
        return digest(
            store.SCHEMA,
            self.pipeline.name,
            self.method.name,
            self.pipeline.seed,
            [s.key for s in self.stages],
        )

    @property
    def folder(self) -> Path:
        """Where its record lies or will lie."""
        pipeline = self.pipeline
        return store.record_folder(pipeline.stages.out, pipeline.name, self.method.name, pipeline.seed, self.key)

    def run(self) -> None:
        """Computes what is missing and writes the record."""
        began = time.monotonic()
        scores, scoring = self._scores()
        test = self.pipeline.test
        rank = metrics.ranks(scores, test.position)
        best = test.candidates[np.arange(len(test)), scores.argmax(axis=1)]
        # argmax takes the first of equal scores, as the ranks do.
        record = {
            "schema": store.SCHEMA,
            "key": self.key,
            "dataset": self.pipeline.name,
            "method": self.method.name,
            "family": self.method.family,
            "seed": self.pipeline.seed,
            "profile": self.pipeline.config.profile,
            "config": self._config(),
            "data": self._data(),
            "protocol": {
                "name": "candidates",
                "size": self.pipeline.dataset_config.candidates,
                "score": self.pipeline.config.scoring.score,
            },
            "metrics": metrics.measure(rank),
            "preference": self._preference(best) if isinstance(self.method, Preference) else None,
            "oracle": self._oracle(),
            "throughput": self._throughput(scoring, time.monotonic() - began),
            "environment": environment.facts(),
            "stages": self._stage_keys(),
        }
        predictions = {
            "users": test.user,
            "rank": rank,
            "scores": scores.astype(np.float32),
            "top": best.astype(np.int32),
            "tied": sequences.tied(self.pipeline.data, self.pipeline.split)[test.user],
        }
        store.write_record(self.pipeline.stages.out, record, predictions)

    def _scores(self) -> tuple[FloatArray, dict[str, Any]]:
        get = self.pipeline.stages.get
        for stage in self.stages:
            get(stage)
        if self.scored is not None:
            return get(self.scored)
        assert isinstance(self.method, Recommender)
        began = time.monotonic()
        with PeakMemory(torch.device("cpu")) as memory:
            scores = np.asarray(self.method.scores(self.pipeline, self.pipeline.test), dtype=np.float64)
        if scores.shape != self.pipeline.test.candidates.shape:
            raise UserError(f"method {self.method.name}: scores of shape {scores.shape}, one a candidate is needed")
        seconds = max(time.monotonic() - began, 1e-9)
        rate = len(scores) / seconds
        return scores, {"seconds": seconds, "users_per_s": rate, "peak_memory_bytes": memory.bytes}

    def _stage_keys(self) -> dict[str, str]:
        keys = {stage.name: stage.key for stage in self.stages}
        if self.trained is not None:  # so that the tables can tell whether methods start from one SFT model
            keys["sft"] = self.language.sft.key
        return keys

    def _config(self) -> dict[str, Any]:
        """The settings that can reach this cell; which other cells ran beside it is not among them."""
        others = {"about", "profile", "methods", "method", "seeds", "first_seed", "datasets", "checkpoint_seconds"}
        config = self.pipeline.config.model_dump(exclude=others)
        if isinstance(self.method, Preference):
            config["preference"] = self.pairing.settings.model_dump()
        return {"dataset": self.pipeline.dataset_config.model_dump(), **config}

    def _data(self) -> dict[str, Any]:
        pipeline = self.pipeline
        data, test = pipeline.data, pipeline.test
        return {
            "source": data.source.name,
            "kind": data.source.kind,
            "files": [asdict(file) for file in data.source.files],
            "counts": data.counts,
            "digest": data.digest,
            "split": pipeline.split.kind,
            "tied_share": sequences.tied_share(data, pipeline.split),
            "candidates_sha256": candidates.content_hash(test),
            "users": len(test),
        }

    def _preference(self, best: np.ndarray) -> dict[str, Any]:
        assert isinstance(self.method, Preference)
        assert self.trained is not None
        pairing, get = self.pairing, self.pipeline.stages.get
        after = pairing.pair_logps(self.method.name, self.trained, ("validation",))
        sft = get(self.language.scores("sft", self.language.sft)).scores
        test = self.pipeline.test
        changed = best != test.candidates[np.arange(len(test)), sft.argmax(axis=1)]
        return {
            "pairs_seen": get(self.trained).report["pairs_seen"],
            "sampler": self.method.sampler,
            "loss": pairing.settings.form if self.method.epsilon != "zero" else "dpo",
            "beta": pairing.settings.beta,
            "epsilon": oracle.summary(self.smoothing.epsilon("train", self.method.epsilon)),
            "validation_epsilon": oracle.summary(self.smoothing.epsilon("validation", self.method.epsilon)),
            "margin_accuracy": {
                "before": _margin_accuracy(get(pairing.reference)["validation"]),
                "after": _margin_accuracy(get(after)["validation"]),
            },
            "changed_top": {"share": float(changed.mean()), "n": len(changed)},
        }

    def _oracle(self) -> dict[str, Any] | None:
        if not isinstance(self.method, Preference) or self.method.epsilon != "oracle":
            return None
        return oracle_facts(self.smoothing)

    def _throughput(self, scoring: dict[str, Any], seconds: float) -> dict[str, Any]:
        trained = self.pipeline.stages.get(self.trained).report if self.trained else {}
        device = "cpu" if self.scored is None else models.device_of(self.pipeline.config.model).type
        peaks = [trained.get("peak_memory_bytes"), scoring.get("peak_memory_bytes")]
        preference = isinstance(self.method, Preference)
        return {
            "training_tokens_per_s": trained.get("tokens_per_s"),
            "pairs_per_s": trained.get("pairs_per_s"),
            "scoring_users_per_s": scoring["users_per_s"],
            "peak_memory_bytes": max((peak for peak in peaks if peak is not None), default=None),
            "impl": ops.live(self.pairing.settings.impl, device) if preference else "-",
            "device": device,
            "threads": torch.get_num_threads(),
            "seconds": {
                **({"training": trained["seconds"]} if trained else {}),
                "scoring": scoring["seconds"],
                "cell": seconds,
            },
        }


def oracle_facts(smoothing: Smoothing) -> dict[str, Any]:
    """What the oracle is worth: its accuracy on uniform validation pairs, a temperature a kind of this method's pairs,
    and how far mean ε of validation and training pairs are apart, beside an oracle trained without folds."""
    pairing, get = smoothing.pairing, smoothing.stages.get
    uniform = Smoothing(Pairing(pairing.language, "uniform", pairing.settings))
    fit = get(uniform.judged).temperatures["uniform"]
    kinds = get(smoothing.judged).temperatures
    return {
        "accuracy": {"value": fit.accuracy, "low": fit.low, "high": fit.high, "n": fit.n},
        "uniform": {"tau": fit.tau, **_epsilon_gaps(uniform)},
        "temperatures": {kind: asdict(temperature) for kind, temperature in kinds.items()},
        **_epsilon_gaps(smoothing),
    }


def _epsilon_gaps(smoothing: Smoothing) -> dict[str, float]:
    def gap(unfolded: bool) -> float:
        validation, train = (smoothing.oracle_epsilon(part, unfolded=unfolded) for part in ("validation", "train"))
        return oracle.gap(validation, train)

    return {"epsilon_gap": gap(False), "epsilon_gap_without_folds": gap(True)}


def _margin_accuracy(logps: FloatArray) -> dict[str, float]:
    """Share of pairs whose chosen title is the likelier one."""
    right = int((logps[:, 0] > logps[:, 1]).sum())
    return statistics.wilson(right, len(logps)).as_dict()
