"""The preference oracle: SASRecs cross-fitted by user folds, and the smoothing factor ε that follows from
their scores.

An oracle must not judge a pair that it was trained on, for it has memorised y_w. So the users are divided
into folds, one model is trained a fold on the histories of all *other* users, and an example is scored by the
model that never saw its user.

How RosePO (arXiv 2410.12519) computes ε is not known to us; what stands here is our reading:

    ε = clip(σ((s(x, y_l) - s(x, y_w)) / τ + log q(y_w|x,y_l) - log q(y_l|x,y_w)), 0, ε_max)

the probability that, given the unordered pair, the other item would have been the chosen one, if s/τ is the
log-utility. q is the law of the sampler (rejection.py); where it is deterministic, the formula goes without
it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from rosepo_bench.base.config import SASRecConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import derive, generator
from rosepo_bench.base.work import Work
from rosepo_bench.data.types import FloatArray, IntArray
from rosepo_bench.evaluation.statistics import Z95, Interval, wilson
from rosepo_bench.recommenders import sasrec
from rosepo_bench.recommenders.sasrec import SASRec

TAU_RANGE = (0.25, 8.0)
"""τ is kept within these bounds: 1 means that the scores are log-probabilities, and beyond a factor of a few
the validation pairs say that the scores are useless (large τ, ε nearly constant) or that they separate too
few pairs to tell (small τ)."""

EDGES = np.linspace(0, 0.5, 11)


def assign_folds(users: int, folds: int, seed: int) -> IntArray:
    """The fold of each user, int64 ``[users]``; sizes differ by one at most."""
    if not 2 <= folds <= users:
        raise UserError(f"oracle.folds = {folds}: needs 2 to {users} (the users) folds")
    return generator(seed, "oracle folds").permutation(users) % folds


@dataclass(frozen=True)
class Oracle:
    """``models[k]`` was trained without the users of fold k; ``fold`` int64 ``[users]``."""

    fold: IntArray
    models: tuple[SASRec, ...]

    def scores(self, user: IntArray, histories: Sequence[IntArray], candidates: IntArray) -> FloatArray:
        """float32 ``[n, m]`` scores of ``candidates`` ``[n, m]`` by the model that never saw ``user[i]``;
        equal to log p(item | history) up to a constant of the row."""
        found = np.zeros(candidates.shape, dtype=np.float32)
        for number, model in enumerate(self.models):
            rows = [int(row) for row in np.flatnonzero(self.fold[user] == number)]
            found[rows] = sasrec.scores(model, [histories[row] for row in rows], candidates[rows])
        return found


def cross_fit(sequences: Sequence[IntArray], items: int, config: SASRecConfig, folds: int, work: Work) -> Oracle:
    """Trains one SASRec a fold on the training histories ``sequences`` (one a user) of the other folds'
    users. In ``work.folder`` each finished fold is kept, and an interrupted cross-fit goes on."""
    fold = assign_folds(len(sequences), folds, work.seed)
    models = []
    for number in range(folds):
        others = [sequence for user, sequence in enumerate(sequences) if fold[user] != number]
        part = replace(
            work,
            seed=derive(work.seed, "oracle", number),
            label=f"{work.label} {number + 1}/{folds}",
            folder=work.folder and work.folder / f"fold{number}",
        )
        models.append(_fold(others, items, config, part))
    return Oracle(fold, tuple(models))


def _fold(sequences: Sequence[IntArray], items: int, config: SASRecConfig, work: Work) -> SASRec:
    """The SASRec of one fold, read if it is finished."""
    if work.folder is None:
        return sasrec.train(sequences, items, config, work)
    finished = work.folder.with_suffix(".safetensors")
    if not finished.exists():
        sasrec.save(sasrec.train(sequences, items, config, work), finished)
        shutil.rmtree(work.folder, ignore_errors=True)  # its checkpoint
    return sasrec.load(finished)


def epsilon(delta: FloatArray, law: FloatArray, tau: float | FloatArray, cap: float) -> FloatArray:
    """ε float64 of pairs with ``delta`` = s(x, y_l) - s(x, y_w) and ``law`` = log q(y_w|x,y_l) - log
    q(y_l|x,y_w) (zeros: without q), both ``[n]`` or ``[n, K]``; clipped to [0, ``cap``]."""
    assert 0 < cap <= 0.5, "beyond 1/2 the preference flips"
    assert np.all(np.asarray(tau) > 0), "tau is a temperature"
    return np.clip(expit(np.asarray(delta, dtype=np.float64) / tau + law), 0.0, cap)


@dataclass(frozen=True)
class Temperature:
    """τ and what the oracle is worth on ``n`` randomly oriented validation pairs: share of pairs whose next
    item it names, with its 95 % Wilson interval; mean log-loss (nats) beside that of the constant 1/2;
    expected calibration error over ten bins; the accuracy of popularity on the same pairs. ``bounded``: τ
    stands at an end of its range. τ is one number fitted to the very pairs; the accuracy does not depend on
    it where the law is 0."""

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


def likeliest_tau(delta: FloatArray, law: FloatArray, bounds: tuple[float, float] = TAU_RANGE) -> float:
    """Maximum-likelihood τ within ``bounds`` of P(y_w came next | pair) = σ(-(delta/τ + law)).

    In 1/τ the loss mean log(1 + exp(delta/τ + law)) is convex, with derivative mean σ(delta/τ + law) delta:
    its root is the optimum. Swapping the two items of a pair turns the signs of delta, law and label at once,
    so the orientation cannot matter here; an intercept would break just that.
    """
    delta = np.asarray(delta, dtype=np.float64)

    def slope(inverse: float) -> float:
        return float(np.mean(expit(delta * inverse + law) * delta))

    low, high = 1 / bounds[1], 1 / bounds[0]
    if slope(low) >= 0:
        return bounds[1]
    if slope(high) <= 0:
        return bounds[0]
    return 1 / float(brentq(slope, low, high, xtol=1e-12))


def fit_temperature(
    delta: FloatArray,
    law: FloatArray,
    popularity_delta: FloatArray,
    *,
    seed: int,
    bounds: tuple[float, float] = TAU_RANGE,
) -> Temperature:
    """Fits τ on validation pairs and measures the oracle there. ``delta``, ``law`` ``[n]`` as in `epsilon`;
    ``popularity_delta`` ``[n]`` is log(1 + count) of y_l minus that of y_w.

    Each pair is first turned at random into (a, b, which came next?): on pairs that all carry the label "the
    first", a constant would be perfect, and a tie would count as right.
    """
    assert len(delta) == len(law) == len(popularity_delta) > 0, "one delta, law and popularity a pair"
    tau = likeliest_tau(delta, law, bounds)
    label = generator(seed, "orientation").random(len(delta)) < 0.5  # True: a is y_w
    sign = np.where(label, -1.0, 1.0)  # delta is y_l minus y_w; a logit speaks for a
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


def calibration_error(probability: FloatArray, label: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean over bins of equal width of |mean probability - share of True|,
    weighted by size."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    difference = np.bincount(place, probability - label, minlength=bins)
    return float(np.abs(difference).sum() / len(label))


def summary(values: FloatArray) -> dict[str, Any]:
    """Mean, standard deviation and histogram of ε: ``counts[b]`` of those in [edges[b], edges[b + 1]), the
    last one closed."""
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


def gap(validation: FloatArray, training: FloatArray, training_user: IntArray) -> Interval:
    """Mean ε of validation pairs (one a user) minus that of training pairs, with a normal 95 % interval over users: far
    from 0 where the oracle has memorised the latter. A user's training pairs are averaged for the interval's width, and
    the two means taken for independent, which is on the safe side where they share users. ``n``: validation pairs."""
    value = float(np.mean(validation) - np.mean(training))
    _, place = np.unique(training_user, return_inverse=True)
    users = np.bincount(place, training) / np.bincount(place)
    half = Z95 * float(np.sqrt(sum(np.var(part) / len(part) for part in (validation, users))))
    return Interval(value, value - half, value + half, len(validation))
