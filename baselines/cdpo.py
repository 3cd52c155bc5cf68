"""cDPO: DPO with one label-smoothing factor for all pairs."""

from rosepo_bench.api import Preference
from rosepo_bench.losses.compiled import CDPO
from rosepo_bench.preference.samplers.uniform import Uniform
from rosepo_bench.preference.smoothings.fixed import Constant

METHOD = Preference(
    name="cdpo",
    about="DPO with one ε for all pairs, uniform rejected items",
    loss=CDPO(),
    sampler=Uniform(),
    smoothing=Constant(),
)
