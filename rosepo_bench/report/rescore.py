"""Metrics computed anew from the predictions of a record, without a model."""

from __future__ import annotations

from dataclasses import replace

from rosepo_bench.base.records import Record
from rosepo_bench.evaluation.metrics.base import Predictions, measure

NOTE = "All metrics were computed anew from the records' predictions by this version of the program (`--rescore`)."


def rescored(record: Record) -> Record:
    """The record with every metric that its predictions allow, those added since it was written too; metrics that this
    program cannot compute from them stay as they are. The file on disk is unchanged."""
    evaluations = {}
    for protocol, told in record["evaluations"].items():
        found = Predictions.of(record.predictions(protocol))
        evaluations[protocol] = {**told, "metrics": {**told["metrics"], **measure(found, found.gives)}}
    return replace(record, data={**record.data, "evaluations": evaluations})
