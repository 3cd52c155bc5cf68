"""All that a third party imports."""

from rosepo_bench.base.errors import UserError
from rosepo_bench.runs.methods import PlainLM, Preference, Recommender

__all__ = ["PlainLM", "Preference", "Recommender", "UserError"]
