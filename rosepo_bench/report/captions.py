"""What stands above a section: data, users, split, protocol, seeds, ties, without which no number should be quoted."""

from __future__ import annotations

import json
from typing import Any

from rosepo_bench.report.comparison import Comparison
from rosepo_bench.report.markdown import distinct, escape, paragraph, percent
from rosepo_bench.report.quality import seeds_in_words

SYNTHETIC = "**Synthetic data**: a replica stands in for the data set; its numbers say nothing about the real one."


def heading(comparison: Comparison) -> str:
    """``movielens``; synthetic data are labelled."""
    return comparison.title + (": synthetic data" if comparison.synthetic else "")


def caption(comparison: Comparison) -> str:
    """One paragraph."""
    if not comparison.records:
        return "No record."
    first = comparison.records[0]
    data = first["data"]
    sources = escape(distinct(record["data"]["source"] for record in comparison.records))
    seeds = sorted({record.seed for record in comparison.records})
    return paragraph(
        SYNTHETIC if comparison.synthetic else "",
        f"Source {sources}, {len(comparison.users):,} test users, split `{data['split']}`,",
        f"profile `{first['profile']}`, {seeds_in_words(seeds)}.",
        _noise(data.get("noise")),
        _protocol(first.protocol, first.facts, data["candidates_sha256"]),
        _ties(data.get("tied_share")),
        escape(comparison.note),
    )


def _noise(noise: dict[str, Any] | None) -> str:
    if not noise:
        return ""
    how = {"uniform": "uniformly", "popularity": "by popularity"}.get(noise["law"], escape(noise["law"]))
    return (
        f"**Noise**: {percent(noise['rate'])} of the training and validation items were replaced by others, drawn "
        f"{how}; the test targets and their candidates are clean."
    )


def _protocol(name: str, facts: dict[str, Any], candidates: str) -> str:
    """What the protocol does; of one that this program does not know, the facts of the record."""
    if facts.get("name") != "candidates":
        told = ", ".join(f"{key} {json.dumps(value)}" for key, value in facts.items())
        return f"Protocol `{name}`" + (f": {escape(told)}." if told else ".")
    return (
        f"Protocol `{name}`: the target among {facts.get('size')} candidates, the others drawn uniformly "
        f"(sha256 {candidates[:12]}); language models rank by the {facts.get('score')} of a title's token log-probs."
    )


def _ties(share: float | None) -> str:
    if not share:
        return ""
    return f"For {percent(share)} of the users the last events have the same time: file order determines the target."
