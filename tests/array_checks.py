"""Every dtype and shape that a signature states is checked at each call of these packages: importing this before they
are imported is enough. A name such as ``n`` must be one number within a call."""

from __future__ import annotations

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

CHECKED = (
    "rosepo_bench.base.intervals",
    "rosepo_bench.base.records",
    "rosepo_bench.base.seeds",
    "rosepo_bench.base.store",
    "rosepo_bench.data",
    "rosepo_bench.evaluation",
    "rosepo_bench.recommenders.popularity",
)

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do where a float is wanted

install_import_hook(CHECKED, "array_checks.check")
