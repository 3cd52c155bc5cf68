"""cDPO: DPO with one label-smoothing factor for all pairs."""

from rosepo_bench.api import Preference

METHOD = Preference(
    name="cdpo",
    summary="DPO with one ε for all pairs, uniform rejected items",
    sampler="uniform",
    epsilon="constant",
)
