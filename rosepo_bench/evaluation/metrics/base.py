"""The contract of metrics: from predictions to a number per user, or one for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int32, Int64, Shaped

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.plugins import Kind, registry
from rosepo_bench.evaluation import statistics


@dataclass(frozen=True)
class Predictions:
    """What a protocol found for each test user; None: it does not say. ``rank`` is the target's, 1 = best; ``top`` the
    item in the first place, ``items`` those in the first places; ``scores`` those of ``candidates``. ``text``: what the
    model wrote; ``named``: the item that it names, -1 for none; is it ``valid``, is the item ``seen`` (one of the
    history), is it the target (``correct``). ``target``: the item that the user took. ``counts``: the training
    interactions of each item of the catalogue."""

    users: Shaped[np.ndarray, " n"]
    rank: Int[np.ndarray, " n"] | None = None
    top: Int[np.ndarray, " n"] | None = None
    scores: Float[np.ndarray, "n size"] | None = None
    candidates: Int[np.ndarray, "n size"] | None = None
    items: Int[np.ndarray, "n k"] | None = None
    text: Shaped[np.ndarray, " n"] | None = None
    named: Int[np.ndarray, " n"] | None = None
    valid: Bool[np.ndarray, " n"] | None = None
    seen: Bool[np.ndarray, " n"] | None = None
    correct: Bool[np.ndarray, " n"] | None = None
    target: Int[np.ndarray, " n"] | None = None
    counts: Int[np.ndarray, " items"] | None = None

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Predictions:
        """From the arrays of a file, which may hold more."""
        return cls(**{one.name: arrays[one.name] for one in fields(cls) if one.name in arrays})

    @property
    def gives(self) -> frozenset[str]:
        """The columns that are there."""
        return frozenset(one.name for one in fields(self) if getattr(self, one.name) is not None)


@dataclass(frozen=True)
class Metric:
    """A number that is better ``high`` or ``low``. ``function`` takes :class:`Predictions` and returns a value for each
    user (``per`` user) or one number (``per`` corpus); ``needs`` names the columns that it reads; metrics
    of one ``group`` share a table."""

    name: str
    about: str
    needs: frozenset[str]
    better: Literal["high", "low"]
    function: Callable[[Predictions], Any]
    source: str = ""
    per: Literal["user", "corpus"] = "user"
    group: Literal["accuracy", "harm", "popularity"] = "accuracy"

    kind: ClassVar[Kind] = Kind("metric", "metrics", "rosepo_bench.evaluation.metrics", declared=True)

    def __call__(self, predictions: Predictions) -> Float64[np.ndarray, " _"]:
        """The users' values, ``[n]``; of a metric of the whole corpus ``[1]``. UserError: another shape, or NaN."""
        wanted = (len(predictions.users),) if self.per == "user" else ()
        try:
            found = np.asarray(self.function(predictions), dtype=np.float64)
        except Exception as error:  # another package's code can fail in any way
            raise self._error(f"{type(error).__name__}: {error}") from error
        if found.shape != wanted:
            raise self._error(f"it returns shape {found.shape}, want {wanted} (per {self.per})")
        if not np.isfinite(found).all():
            raise self._error(f"it returns {found[~np.isfinite(found)].flat[0]}, want finite numbers")
        return np.atleast_1d(found)

    def _error(self, problem: str) -> UserError:
        return UserError(f"metric {self.name}: {problem}; fix it, or remove the package that declares it")

    def interval(self, values: Float64[np.ndarray, " n"]) -> dict[str, float | None]:
        """The mean of users' values with its 95 % interval, as records hold it: Student's where values lie outside
        [0, 1]. A metric of the corpus has none."""
        if self.per == "corpus":
            return {"value": float(values[0]), "low": None, "high": None, "n": None}
        inside = np.all((values >= 0) & (values <= 1))
        return dict((statistics.average(values) if inside else statistics.student(values)).as_dict())


def metrics() -> dict[str, Metric]:
    """All metrics, ours first."""
    return dict(registry(Metric).found)


def ranking_metric(name: str) -> Metric:
    """A metric that can be computed from ranks for each user, as training is watched by. UserError: another one."""
    metric: Metric = registry(Metric)[name]
    if metric.per != "user" or not metric.needs <= {"rank", "top", "scores"}:
        raise UserError(f"validation.metric = {name!r}: want one of each user's ranked candidates, such as ndcg@10")
    return metric


def measure(predictions: Predictions, gives: Iterable[str]) -> dict[str, dict[str, float | None]]:
    """Every metric whose needs are given, with its 95 % interval over users: {name: {value, low, high, n}}."""
    given = frozenset(gives)
    return {name: metric.interval(metric(predictions)) for name, metric in metrics().items() if metric.needs <= given}


def ranks(scores: Float[np.ndarray, "n size"], position: Int64[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
    """The target's rank among the candidates, 1 = best.

    ``scores``: higher is better, -inf allowed; ``position``: the target's column. Ties are broken by position. As the
    target's position is drawn uniformly, a method that gives all candidates one score gets HR@k = k/size on average:
    ties neither help nor harm. UserError: NaN scores.
    """
    if scores.ndim != 2 or position.shape != scores.shape[:1]:
        raise ValueError(f"scores [n, m] and position [n] expected, got {scores.shape} and {position.shape}")
    assert np.all((position >= 0) & (position < scores.shape[1])), "position is a column of scores"
    broken = np.flatnonzero(np.isnan(scores).any(axis=1))
    if len(broken):
        raise UserError(
            f"scores of {len(broken)} of {len(scores)} users hold NaN (first: row {broken[0]}); "
            "the training has diverged: lower its learning rate"
        )
    target = np.take_along_axis(scores, position[:, None].astype(np.int64), axis=1)
    earlier = np.arange(scores.shape[1]) < position[:, None]
    return (1 + ((scores > target) | ((scores == target) & earlier)).sum(axis=1)).astype(np.int32)
