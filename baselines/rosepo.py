"""RosePO (arXiv 2410.12519), our reading: hard rejected items and an ε for each pair from a preference oracle."""

from dataclasses import replace

from rosepo_bench.api import Preference
from rosepo_bench.losses.compiled import Robust, RosePO
from rosepo_bench.preference.samplers.mixed import Mixed
from rosepo_bench.preference.samplers.popularity import Popularity
from rosepo_bench.preference.samplers.self_hard import SelfHard
from rosepo_bench.preference.samplers.semantic import Semantic
from rosepo_bench.preference.smoothings.predicted import Predicted

MIXED = Preference(
    name="rosepo",
    about="rejected items from all three samplers, one ε per pair",
    paper="arXiv 2410.12519",
    reading="form of the loss, formula of ε, SASRec as oracle, laws of the samplers",
    loss=RosePO(),
    sampler=Mixed(),
    smoothing=Predicted(),
)
SELF_HARD = replace(
    MIXED, name="rosepo-self-hard", about="rejected items: the SFT model's own mistakes", sampler=SelfHard()
)
SEMANTIC = replace(MIXED, name="rosepo-semantic", about="rejected items: similar in meaning", sampler=Semantic())
POPULARITY = replace(MIXED, name="rosepo-popularity", about="rejected items: popular ones", sampler=Popularity())
ROBUST = replace(
    MIXED,
    name="rosepo-robust",
    about="the robust form of the loss, ε capped",
    loss=Robust(),
    smoothing=Predicted(cap=0.3),
)
