"""Every dtype and shape that a signature states is checked at each call of these packages: importing this before they
are imported is enough. A name such as ``n`` must be one number within a call."""

from __future__ import annotations

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

# Left out: what is called once per line of a file (data.readers.reading, goodreads, steam) or per node of a search
# (engine.ranking.search, beam); engine.training, which tests call with stand-ins for models.
# A function inside a function is decorated at each call of the outer one, which is slow: a lambda is not.
RANKING = ("catalogue", "generation", "prefix", "result", "scoring", "trie", "trie_reader")
CHECKED = (
    "rosepo_bench.base.intervals",
    "rosepo_bench.base.failures",
    "rosepo_bench.base.predictions",
    "rosepo_bench.base.records",
    "rosepo_bench.base.store",
    "rosepo_bench.data.candidates",
    "rosepo_bench.data.catalog",
    "rosepo_bench.data.describe",
    "rosepo_bench.data.population",
    "rosepo_bench.data.readers.atomic",
    "rosepo_bench.data.readers.columns",
    "rosepo_bench.data.readers.movielens",
    "rosepo_bench.data.sequences",
    "rosepo_bench.data.storage",
    "rosepo_bench.data.synthetic",
    "rosepo_bench.data.types",
    "rosepo_bench.evaluation",
    "rosepo_bench.pipeline",
    "rosepo_bench.preference",
    "rosepo_bench.recommenders.popularity",
    "rosepo_bench.recommenders.sasrec",
    "rosepo_bench.report",
    "rosepo_bench.engine.prompts",
    *(f"rosepo_bench.engine.ranking.{name}" for name in RANKING),
)

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do where a float is wanted

install_import_hook(CHECKED, "array_checks.check")
