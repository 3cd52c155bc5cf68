"""Popularity: the items with the most training interactions, the same for every user."""

from rosepo_bench.api import Recommender
from rosepo_bench.recommenders.popularity import Popularity

METHOD = Recommender(
    name="popularity", about="number of training interactions, the same for every user", model=Popularity()
)
