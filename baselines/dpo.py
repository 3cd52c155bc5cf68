"""DPO with uniformly drawn rejected items."""

from rosepo_bench.api import Preference
from rosepo_bench.losses.compiled import DPO
from rosepo_bench.preference.samplers.uniform import Uniform

METHOD = Preference(
    name="dpo", about="DPO with uniform rejected items", paper="arXiv 2305.18290", loss=DPO(), sampler=Uniform()
)
