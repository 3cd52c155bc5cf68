"""Harm: what language models write that is no item, or none that could be recommended."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from rosepo_bench.evaluation.metrics.base import Metric, Predictions


def _valid(predictions: Predictions) -> Float64[np.ndarray, " n"]:
    assert predictions.valid is not None
    return predictions.valid.astype(np.float64)


def _out_of_catalogue(predictions: Predictions) -> Float64[np.ndarray, " n"]:
    assert predictions.named is not None
    return (predictions.named < 0).astype(np.float64)


def _seen(predictions: Predictions) -> Float64[np.ndarray, " n"]:
    assert predictions.seen is not None
    return predictions.seen.astype(np.float64)


def _correct(predictions: Predictions) -> Float64[np.ndarray, " n"]:
    assert predictions.correct is not None
    return predictions.correct.astype(np.float64)


VALID = Metric(
    "valid",
    "share of outputs that name exactly one title: of the listed candidates, else of the catalogue",
    frozenset({"valid"}),
    "high",
    _valid,
    "ValidRatio of LLaRA, arXiv 2312.02445",
    group="harm",
)
OUT_OF_CATALOGUE = Metric(
    "out-of-catalogue",
    "share of outputs that name no title of the catalogue, before any mapping: hallucinated items",
    frozenset({"named"}),
    "low",
    _out_of_catalogue,
    group="harm",
)
SEEN = Metric(
    "seen",
    "share of outputs that name an item of the user's history",
    frozenset({"seen"}),
    "low",
    _seen,
    group="harm",
)
CORRECT = Metric(
    "correct",
    "share of outputs that name the target, of all outputs; only where prompts list the candidates",
    frozenset({"correct"}),
    "high",
    _correct,
    "HR@1 of LLaRA, arXiv 2312.02445",
)
