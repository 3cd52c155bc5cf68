"""Every row of the CSV is its record's own number, with the ends of its interval in their order."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_hand import between
from invented import EPSILONS, METRICS, PROTOCOL, TOLD, made, value_of

from rosepo_bench.base.records import Record, read_records
from rosepo_bench.report.tables import report_of, write_report


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, list[Record], Path]:
    out = tmp_path_factory.mktemp("report")
    return (*made(out), read_records(out)[0], out)


def expected_rows(told: dict[str, Any], rank: np.ndarray, others: dict[str, np.ndarray]) -> dict[tuple[str, str], Any]:
    """(seed, metric) to (value, low, high, n) of one cell's rows of the CSV."""

    def ends(of: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(of.get(name, "") for name in ("value", "low", "high", "n"))

    rows: dict[tuple[str, str], Any] = {
        ("3", metric): ends(told["evaluations"][PROTOCOL]["metrics"][metric]) for metric in METRICS
    }
    for metric in METRICS:
        rows["all", metric] = ends(told["evaluations"][PROTOCOL]["metrics"][metric])
        for baseline, other in others.items():
            rows["all", f"{metric}_minus_{baseline}"] = ends(between(value_of(metric, rank), value_of(metric, other)))
    speed = told["throughput"]
    plain = {name: speed[name] for name in speed if not isinstance(speed[name], str | dict)}
    plain |= {f"seconds_{name}": value for name, value in speed["seconds"].items()}
    if told["training"] and told["training"]["best_step"] is not None:
        plain["best_step"] = told["training"]["best_step"]
    if one := told["diagnostics"]["preference"]:
        plain |= {"pairs_seen": one["pairs_seen"], "beta": one["beta"]}
        plain |= {f"{name}_{part}": one[name][part] for name in EPSILONS for part in ("mean", "sd")}
        rows |= {("3", f"margin_accuracy_{when}"): ends(one["margin_accuracy"][when]) for when in ("before", "after")}
        rows["3", "changed_top"] = (one["changed_top"]["share"], "", "", one["changed_top"]["n"])
    if one := told["diagnostics"]["oracle"]:
        rows["3", "oracle_accuracy"], plain["oracle_tau_uniform"] = ends(one["accuracy"]), one["uniform"]["tau"]
        for gap in ("epsilon_gap", "epsilon_gap_without_folds"):
            rows["3", f"oracle_{gap}"], rows["3", f"oracle_{gap}_uniform"] = ends(one[gap]), ends(one["uniform"][gap])
        for kind, fit in one["temperatures"].items():
            plain[f"oracle_tau_{kind}"] = fit["tau"]
            rows["3", f"oracle_accuracy_{kind}"] = ends({**fit, "value": fit["accuracy"]})
    return rows | {("3", name): (value, "", "", "") for name, value in plain.items()}


def test_every_row_of_the_csv_is_its_records(found: tuple[dict, dict, list[Record], Path]) -> None:
    told, ranks, records, out = found
    text = write_report(out, report_of(records))[1].read_text(encoding="utf-8")
    written: dict[tuple[str, str], dict[tuple[str, str], tuple[Any, ...]]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        place = written.setdefault((row["dataset"], row["method"]), {})
        assert (row["seed"], row["metric"]) not in place
        assert (row["kind"], row["protocol"]) == ("real", PROTOCOL)
        place[row["seed"], row["metric"]] = tuple(row[end] for end in ("value", "low", "high", "n"))
    assert set(written) == {(dataset, method) for dataset, method, _ in TOLD}
    for dataset, method, seed in TOLD:
        others = {base: ranks[dataset, base, seed] for base in ("sft", "popularity") if base != method}
        expected = expected_rows(told[dataset, method, seed], ranks[dataset, method, seed], others)
        assert set(written[dataset, method]) == set(expected)
        for name, values in expected.items():
            shown = [float(one) if one else "" for one in written[dataset, method][name]]
            assert shown == [pytest.approx(one, rel=1e-6, abs=1e-9) if one != "" else "" for one in values], name
