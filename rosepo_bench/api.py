"""All that a third party imports."""

from rosepo_bench.base.component import Component, setting
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.work import Work
from rosepo_bench.data.types import Queries
from rosepo_bench.data.views import HoldoutView, TrainView
from rosepo_bench.evaluation.metrics.base import Metric, Predictions
from rosepo_bench.losses.arguments import Pairs
from rosepo_bench.losses.base import Columns, Loss, StepRewards
from rosepo_bench.preference.samplers.base import Rejected, Sampler, ScoredQueries
from rosepo_bench.preference.smoothings.base import JudgedPairs, OracleSmoothing, Smoothing
from rosepo_bench.recommenders.base import Oracle, State
from rosepo_bench.runs.methods import PlainLM, Preference, Recommender

__all__ = [
    "Columns",
    "Component",
    "HoldoutView",
    "JudgedPairs",
    "Loss",
    "Metric",
    "Oracle",
    "OracleSmoothing",
    "Pairs",
    "PlainLM",
    "Predictions",
    "Preference",
    "Queries",
    "Recommender",
    "Rejected",
    "Sampler",
    "ScoredQueries",
    "Smoothing",
    "State",
    "StepRewards",
    "TrainView",
    "UserError",
    "Work",
    "setting",
]
