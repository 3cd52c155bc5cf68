"""Popularity: the items most often taken in training, for everybody."""

from rosepo_bench.api import Recommender
from rosepo_bench.recommenders.popularity import counts

METHOD = Recommender(
    name="popularity",
    summary="training interactions of an item, the same for every user",
    scores=lambda pipeline, examples: counts(pipeline.training, pipeline.data.items)[examples.candidates],
)
