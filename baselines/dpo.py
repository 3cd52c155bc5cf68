"""DPO (arXiv 2305.18290) with uniformly drawn rejected items."""

from rosepo_bench.api import Preference

METHOD = Preference(
    name="dpo", summary="DPO with uniform rejected items (arXiv 2305.18290)", sampler="uniform", epsilon="zero"
)
