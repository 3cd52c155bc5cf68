"""The validation metric that early stopping looks at, the same for every training."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from rosepo_bench.base.config import TrainingConfig
from rosepo_bench.data.views import HoldoutView
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.training.loop import Validation
from rosepo_bench.evaluation.metrics.base import ranking_metric
from rosepo_bench.evaluation.protocols.base import joined
from rosepo_bench.pipeline.language import Language
from rosepo_bench.pipeline.ranking import TitleRanker
from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.pipeline.task import Task


def holdout(task: Task) -> HoldoutView:
    """The validation part with ``validation.metric``, for what declares that it reads it."""
    metric, examples = ranking_metric(task.config.validation.metric), task.validation()

    def measure(scores: Float[np.ndarray, "n size"], rows: HoldoutView) -> float:
        return float(np.mean(metric(joined(rows.queries, scores, rows.position))))

    return HoldoutView(task.queries(examples), examples.target, examples.position, measure, metric.better)


def watched(
    language: Language, model: LanguageModel, config: TrainingConfig, rule: str, label: str
) -> Validation | None:
    """The validation of a language model's training: it ranks the validation users' candidates by the sum or the mean
    (``rule``) of a title's token log-probs. None: ``config.evaluations`` is 0."""
    if not config.evaluations:
        return None
    held = holdout(language.task)
    ranker = TitleRanker(model, language.prompter, language.config.scoring.batch_tokens, f"{label}: validation")

    def measure() -> float:
        return held.measure(ranker.scores(held.queries, held.queries.candidates, rule))

    return Validation(measure, held.better, config.evaluations, config.patience)


def watched_inputs(task: Task, config: TrainingConfig, rule: str) -> dict[str, Any]:
    """What a stage depends on through :func:`watched`."""
    if not config.evaluations:
        return {}
    return {"validation": task.config.validation.model_dump(exclude={"probes"}), "rule": rule}


def watching_code(task: Task) -> tuple[object, ...]:
    """The code of the validation metric, for stages whose training is watched by it."""
    return (ranking_metric(task.config.validation.metric).function,)


def watched_parents(task: Task, config: TrainingConfig) -> tuple[Stage[Any], ...]:
    """The stages that a stage depends on through :func:`watched`."""
    return (task.examples_stage("validation"),) if config.evaluations else ()
