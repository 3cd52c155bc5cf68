"""Popularity: the items with the most training interactions, the same for every user."""

from rosepo_bench.api import Recommender
from rosepo_bench.recommenders.popularity import counts

METHOD = Recommender(
    name="popularity",
    summary="number of training interactions, the same for every user",
    scores=lambda pipeline, examples: counts(pipeline.training, pipeline.data.items)[examples.candidates],
)
