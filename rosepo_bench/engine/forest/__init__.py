"""The token forest: tokens that several sequences begin with are computed once."""

from rosepo_bench.engine.forest.trees import (
    Batch,
    Group,
    Limits,
    Tree,
    build,
    build_all,
    build_id,
    collate,
    native,
)

__all__ = ["Batch", "Group", "Limits", "Tree", "build", "build_all", "build_id", "collate", "native"]
