"""Every loss of `ls losses`, trained through `run` with one rejected item a pair and, where it takes several, three:
margins of held-out pairs before and after, quality beside SFT's, and what looking at whole steps costs.

python tests/engine/losses_study.py [--profile P] [--dataset D] [--set KEY=VALUE] [--out DIR] [--into FILE]
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import study

from rosepo_bench.base import records, store
from rosepo_bench.base.plugins import registry
from rosepo_bench.base.records import Record
from rosepo_bench.evaluation import statistics
from rosepo_bench.evaluation.metrics.ranking import hit_ratio, ndcg
from rosepo_bench.losses.base import Loss
from rosepo_bench.report.markdown import interval, number, paragraph, quantity, table

MANY = 3
HEADER = ["loss", "K", "kernel", "margin before", "margin after", "accuracy before", "accuracy after"]
HEADER += ["HR@1 minus SFT", "NDCG@10 minus SFT", "training s", "of them looking"]


def trained(given: argparse.Namespace, method: str, *settings: str) -> Record:
    """The record of one method under settings of its own."""
    (cell,) = study.finished(study.configuration(given, method, settings), study.places(given, given.out))
    return records.read_record(cell.folder / "record.json")


def difference(one: Record, other: Record, function: Any, k: int) -> str:
    """Paired, over the test users."""
    protocol = one.protocols[0]
    first, second = (function(record.predictions(protocol)["rank"], k) for record in (one, other))
    return interval(statistics.paired(np.asarray(first), np.asarray(second)), signed=True)


def row(name: str, k: int, record: Record, sft: Record) -> list[str]:
    told, seconds = record["diagnostics"]["preference"], record["throughput"]["seconds"]
    looking = seconds.get("of_step")
    return [
        name,
        str(k),
        told["kernel"],
        *(number(told["margin"][when]["value"], digits=3, signed=True) for when in ("before", "after")),
        *(number(told["margin_accuracy"][when]["value"]) for when in ("before", "after")),
        difference(record, sft, hit_ratio, 1),
        difference(record, sft, ndcg, 10),
        quantity(seconds["training"]),
        "–" if looking is None else f"{looking / seconds['training']:.0%}",
    ]


def main(arguments: list[str] | None = None) -> int:
    given = study.parser(__doc__, out="results/losses", into="results/losses.md").parse_args(arguments)
    sft, rows = trained(given, "sft"), []
    for name, loss in sorted(registry(Loss).found.items()):
        for k in (1, MANY) if loss.many else (1,):
            settings = (f"method.dpo.loss={name}", f"method.dpo.rejected={k}")
            rows.append(row(name, k, trained(given, "dpo", *settings), sft))
    facts = sft.data
    caption = paragraph(
        f"Data set {given.dataset} ({facts['data']['kind']}), {facts['data']['users']} test users, seed {sft.seed},",
        f"{study.profile(given, study.configuration(given, 'sft'))}; every loss with its default settings, uniform",
        "rejected items, ε = 0. Margin: mean over held-out pairs of the chosen title's log-prob minus the mean of the",
        "rejected ones'; accuracy: share of pairs whose chosen title is above all rejected ones. Looking: the share of",
        "the training's time spent on passes that see a whole optimizer step before it is taken.",
    )
    parts = ["# Every loss through `run`", caption, table(HEADER, rows, left=["loss", "kernel"], whole=True)]
    store.write_text(given.into, "\n\n".join([*parts, study.machine(facts["environment"])]) + "\n")
    print(f"written: {given.into}")
    return 0


if __name__ == "__main__":
    raise SystemExit(study.run(main))
