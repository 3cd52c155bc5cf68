"""SASRec: self-attentive sequential recommendation."""

from rosepo_bench.api import Recommender
from rosepo_bench.recommenders.sasrec import SASRec

METHOD = Recommender(
    name="sasrec",
    about="self-attention over item ids, full softmax",
    paper="arXiv 1808.09781",
    reading="full softmax over the catalogue in place of one sampled negative",
    model=SASRec(),
)
