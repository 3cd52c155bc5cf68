"""The smoothing factor ε of a pair from a preference oracle's scores, and how accurate the oracle is.

We do not know how RosePO (arXiv 2410.12519) computes ε; this is our reading:

    ε = clip(σ((s(x, y_l) - s(x, y_w)) / τ + log q(y_w|x,y_l) - log q(y_l|x,y_w)), 0, ε_max)

the probability that, given the unordered pair, the other item was the chosen one, if s/τ is the log-utility.
q is the sampler's distribution (samplers/law.py); for a deterministic sampler both terms are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.special import expit

from rosepo_bench.base.intervals import Z95, Interval, wilson
from rosepo_bench.base.seeds import generator

TAU_RANGE = (0.25, 8.0)
"""Bounds of τ. At τ = 1 the scores are log-probabilities. A fit at the upper bound means that the scores are useless
(ε nearly constant), one at the lower bound that there are too few validation pairs to tell."""

EDGES = np.linspace(0, 0.5, 11)


def epsilon(
    delta: Float[np.ndarray, "*pairs"],
    law: Float64[np.ndarray, "*pairs"],
    tau: float | Float64[np.ndarray, "*pairs"],
    cap: float,
) -> Float64[np.ndarray, "*pairs"]:
    """ε of pairs with ``delta`` = s(x, y_l) - s(x, y_w) and ``law`` = log q(y_w|x,y_l) - log q(y_l|x,y_w) (zeros:
    without q), clipped to [0, ``cap``]."""
    assert 0 < cap <= 0.5, "beyond 1/2 the preference flips"
    assert np.all(np.asarray(tau) > 0), "tau is a temperature"
    return np.clip(expit(np.asarray(delta, dtype=np.float64) / tau + law), 0.0, cap)


@dataclass(frozen=True)
class Temperature:
    """τ, and the oracle's quality on the ``n`` randomly oriented validation pairs that τ is fitted to: accuracy, the
    share of pairs in which it predicts the item taken next, with its 95 % Wilson interval; mean log-loss (nats), and
    that of the constant 1/2; expected calibration error over ten bins; the accuracy of popularity on the same pairs.
    ``bounded``: τ is at an end of its range. Where the law is 0, the accuracy does not depend on τ."""

    tau: float
    n: int
    accuracy: float
    low: float
    high: float
    log_loss: float
    constant_log_loss: float
    calibration_error: float
    popularity_accuracy: float
    bounded: bool


def likeliest_tau(
    delta: Float[np.ndarray, " n"], law: Float64[np.ndarray, " n"], bounds: tuple[float, float] = TAU_RANGE
) -> float:
    """Maximum-likelihood τ within ``bounds`` of P(y_w came next | pair) = σ(-(delta/τ + law)).

    The loss, mean log(1 + exp(delta/τ + law)), is convex in 1/τ with derivative mean σ(delta/τ + law) delta, whose
    root is the optimum. Swapping the two items of a pair flips the signs of delta, law and label together, so the
    orientation of pairs does not matter; with an intercept it would.
    """
    delta = np.asarray(delta, dtype=np.float64)

    def slope(inverse: float) -> float:
        return float(np.mean(expit(delta * inverse + law) * delta))

    low, high = 1 / bounds[1], 1 / bounds[0]
    if slope(low) >= 0:
        return bounds[1]
    if slope(high) <= 0:
        return bounds[0]
    from scipy.optimize import brentq  # slow to import, and needed only where something is fitted

    return 1 / float(brentq(slope, low, high, xtol=1e-12))


def fit_temperature(
    delta: Float[np.ndarray, " n"],
    law: Float64[np.ndarray, " n"],
    popularity_delta: Float64[np.ndarray, " n"],
    *,
    seed: int,
    bounds: tuple[float, float] = TAU_RANGE,
) -> Temperature:
    """Fits τ on validation pairs and measures the oracle on them. ``delta`` and ``law`` as in `epsilon`;
    ``popularity_delta`` is log(1 + count) of y_l minus that of y_w.

    Each pair is first oriented at random, (a, b, which came next?): if every label were "the first", a constant would
    be perfect and a tie would count as right.
    """
    assert len(delta) == len(law) == len(popularity_delta) > 0, "one delta, law and popularity per pair"
    tau = likeliest_tau(delta, law, bounds)
    label = generator(seed, "orientation").random(len(delta)) < 0.5  # True: a is y_w
    sign = np.where(label, -1.0, 1.0)  # delta is y_l minus y_w; a positive logit is for a
    logit = sign * (np.asarray(delta, dtype=np.float64) / tau + law)
    right = int(((logit >= 0) == label).sum())
    accuracy = wilson(right, len(delta))
    return Temperature(
        tau=tau,
        n=len(delta),
        accuracy=accuracy.value,
        low=accuracy.low,
        high=accuracy.high,
        log_loss=float(np.mean(np.logaddexp(0, np.where(label, -logit, logit)))),
        constant_log_loss=float(np.log(2)),
        calibration_error=calibration_error(expit(logit), label),
        popularity_accuracy=float(np.mean((sign * popularity_delta >= 0) == label)),
        bounded=tau in bounds,
    )


def calibration_error(probability: Float64[np.ndarray, " n"], label: Bool[np.ndarray, " n"], bins: int = 10) -> float:
    """Expected calibration error: |mean probability - share of True| in bins of equal width, averaged with the bins'
    sizes as weights."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    difference = np.bincount(place, probability - label, minlength=bins)
    return float(np.abs(difference).sum() / len(label))


def summary(values: Float64[np.ndarray, "*pairs"]) -> dict[str, Any]:
    """Mean, standard deviation and histogram of ε: ``counts[b]`` values in [edges[b], edges[b + 1]), the last interval
    closed."""
    assert values.size, "no pairs"
    assert ((values >= 0) & (values <= 0.5)).all(), "epsilon is in [0, 1/2]"
    edges = [round(float(edge), 2) for edge in EDGES]
    counts = np.histogram(values, bins=EDGES)[0]
    return {
        "mean": float(values.mean()),
        "sd": float(values.std()),
        "edges": edges,
        "counts": counts.tolist(),
    }


def epsilon_gap(
    validation: Float64[np.ndarray, " n"],
    training: Float64[np.ndarray, " pairs"],
    training_user: Int64[np.ndarray, " pairs"],
) -> Interval:
    """Mean ε of validation pairs (one per user) minus that of training pairs, with a normal 95 % interval over users.
    It is far from 0 where the oracle has memorised the training pairs. For the width a user's training pairs are
    averaged, and the two means are treated as independent, which is conservative where they share users. ``n``:
    validation pairs."""
    value = float(np.mean(validation) - np.mean(training))
    _, place = np.unique(training_user, return_inverse=True)
    users = np.bincount(place, training) / np.bincount(place)
    half = Z95 * float(np.sqrt(sum(np.var(part) / len(part) for part in (validation, users))))
    return Interval(value, value - half, value + half, len(validation))
