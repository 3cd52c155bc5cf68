"""RosePO (arXiv 2410.12519), our reading: hard rejected items and an ε for each pair from a preference oracle."""

from rosepo_bench.api import Preference

MIXED = Preference(
    name="rosepo",
    summary="RosePO, rejected items from all three samplers (our reading)",
    sampler="mixed",
    epsilon="oracle",
)
SELF_HARD = Preference(
    name="rosepo-self-hard",
    summary="RosePO, rejected items: the SFT model's own mistakes (our reading)",
    sampler="self_hard",
    epsilon="oracle",
)
SEMANTIC = Preference(
    name="rosepo-semantic",
    summary="RosePO, rejected items: similar in meaning (our reading)",
    sampler="semantic",
    epsilon="oracle",
)
POPULARITY = Preference(
    name="rosepo-popularity",
    summary="RosePO, rejected items: popular ones (our reading)",
    sampler="popularity",
    epsilon="oracle",
)
ROBUST = Preference(
    name="rosepo-robust",
    summary="RosePO with the robust form of the loss, ε capped (our reading)",
    sampler="mixed",
    epsilon="oracle",
    settings={"form": "robust", "epsilon_max": 0.3},
)
