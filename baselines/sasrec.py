"""SASRec: self-attentive sequential recommendation (arXiv 1808.09781)."""

from rosepo_bench.api import Recommender

METHOD = Recommender(
    name="sasrec",
    summary="self-attention over item ids, full softmax (arXiv 1808.09781)",
    stages=lambda pipeline: (pipeline.sasrec,),
    scores=lambda pipeline, examples: pipeline.sasrec_scores(examples),
)
