"""What stands above a section: data, users, split, protocol, seeds, and what the data hide; no number should be quoted
without it."""

from __future__ import annotations

import json
from typing import Any

from rosepo_bench.data import population
from rosepo_bench.report.comparison import Comparison
from rosepo_bench.report.markdown import code, code_text, distinct, escape, paragraph, percent
from rosepo_bench.report.notes import seeds_in_words

SYNTHETIC = "**Synthetic data**: a replica stands in for the data set; its numbers say nothing about the real one."


def heading(comparison: Comparison) -> str:
    """``movielens``; synthetic data are labelled."""
    return comparison.title + (": synthetic data" if comparison.synthetic else "")


def caption(comparison: Comparison) -> str:
    """A paragraph, and one with a warning where the data call for it."""
    if not comparison.records:
        return "No record."
    first = comparison.records[0]
    data = first["data"]
    sources = escape(distinct(record["data"]["source"] for record in comparison.records))
    seeds = sorted({record.seed for record in comparison.records})
    told: dict[str, Any] = {}
    for record in reversed(comparison.records):  # older records say less
        told |= record["data"]
    told["left_out_first"] = [code_text(user) for user in told.get("left_out_first", ())]
    text = paragraph(
        SYNTHETIC if comparison.synthetic else "",
        f"Source {sources}, {len(comparison.users):,} test users, split {code(data['split'])},",
        f"profile {code(first['profile'])}, {seeds_in_words(seeds)}.",
        _noise(data.get("noise")),
        _protocol(first.protocol, first.facts, data["candidates_sha256"]),
        *population.remarks(told),
        escape(comparison.note),
    )
    return "\n\n".join(filter(None, (text, paragraph(population.warning(told)))))


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
        return f"Protocol {code(name)}" + (f": {escape(told)}." if told else ".")
    size, score, sha256 = (escape(str(one)) for one in (facts.get("size"), facts.get("score"), candidates[:12]))
    return (
        f"Protocol {code(name)}: the target among {size} candidates, the others drawn uniformly (sha256 {sha256}); "
        f"language models rank by the {score} of a title's token log-probs."
    )
