"""Every number of the report is the record's own: in made-up records no two numbers are alike, and each stands in its
own row and column of the tables and of the CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_hand import between, student, tables, wilson

from rosepo_bench.base.records import Record, read_records, write_record
from rosepo_bench.report.tables import render, write_report

FAMILIES = {"popularity": "recommender", "sasrec": "recommender", "sft": "language_model"}
METHODS = ("popularity", "sasrec", "sft", "dpo", "rosepo")
DATASETS = ("games", "movies")
USERS = 60
KINDS = ("popularity", "self_hard")
METRICS = ("hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10")
TOLD = [(dataset, method, 3) for dataset in DATASETS for method in METHODS]


class Numbers:
    """Numbers between 0 and 1 that differ in their third decimal: 0.137, 0.274, … over all records."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> float:
        self.count += 1
        return (self.count * 137 % 997) / 1000 + 0.001

    def around(self, n: int) -> dict[str, float]:
        """A value whose ends lie at different distances."""
        value = self()
        return {"value": value, "low": value - 0.0113 - self.count / 1e4, "high": value + 0.0231, "n": n}


def gain(rank: np.ndarray, k: int) -> np.ndarray:
    return np.where(rank <= k, 1 / np.log2(1 + rank), 0)


def value_of(metric: str, rank: np.ndarray) -> np.ndarray:
    """A metric of each user, from its definition."""
    name, k = metric.split("@")
    return (rank <= int(k)).astype(float) if name == "hr" else gain(rank, int(k))


def interval_of(values: np.ndarray) -> dict[str, float]:
    shares = set(np.unique(values)) <= {0.0, 1.0}
    low, high = wilson(int(values.sum()), len(values)) if shares else student(values)
    return {"value": float(values.mean()), "low": max(low, 0.0), "high": min(high, 1.0), "n": len(values)}


def invented(dataset: str, method: str, seed: int, rank: np.ndarray, draw: Numbers) -> dict[str, Any]:
    """A record with a number of its own in every place."""
    family = FAMILIES.get(method, "preference")
    tuned, n = family == "preference", 1000 + draw.count
    speed = {name: 1000 * draw() + 0.4 for name in ("training_tokens_per_s", "pairs_per_s", "scoring_users_per_s")}
    told = {
        "pairs_seen": 2000 + draw.count,
        "sampler": f"sampler-{dataset}-{method}",
        "loss": f"loss-{dataset}-{method}",
        "beta": round(draw(), 3),
        **{name: {"mean": draw() / 2, "sd": draw(), "edges": [], "counts": []} for name in EPSILONS},
        "margin_accuracy": {when: draw.around(n) for when in ("before", "after")},
        "changed_top": {"share": draw(), "n": n + 1},
    }
    gaps = ("epsilon_gap", "epsilon_gap_without_folds")
    oracle = {
        "accuracy": draw.around(n + 2),
        "uniform": {"tau": 8 * draw(), **{gap: draw.around(n + 3) for gap in gaps}},
        "temperatures": {
            kind: {"tau": 8 * draw(), "accuracy": draw(), "low": draw(), "high": draw(), "n": n + 4} for kind in KINDS
        },
        **{gap: draw.around(n + 5) for gap in gaps},
    }
    data = {"source": f"source-{dataset}", "kind": "real", "digest": dataset, "split": f"split-{dataset}"}
    return {
        "schema": 1,
        "key": f"{dataset}{method}{seed}".encode().hex(),
        "dataset": dataset,
        "method": method,
        "family": family,
        "seed": seed,
        "profile": f"profile-{dataset}",
        "config": {},
        "environment": {},
        "data": {**data, "tied_share": draw(), "candidates_sha256": f"{dataset}-hash-of-lists", "users": len(rank)},
        "protocol": {"name": "candidates", "size": 20 + len(dataset), "score": "sum"},
        "metrics": {metric: interval_of(value_of(metric, rank)) for metric in METRICS},
        "preference": told if tuned else None,
        "oracle": oracle if method == "rosepo" else None,
        "throughput": {
            **speed,
            "peak_memory_bytes": int(1e9 * draw()),
            **{key: f"{key}-{dataset}-{method}" for key in ("impl", "attention", "device")},
            "threads": draw.count,
            "seconds": {name: 100 * draw() + 0.04 for name in ("training", "scoring", "cell")},
        },
        "stages": {},
    }


EPSILONS = ("epsilon", "validation_epsilon")


def made(out: Path) -> tuple[dict[tuple[str, str, int], dict[str, Any]], dict[tuple[str, str, int], np.ndarray]]:
    """Two data sets, five methods, one seed: records on disk, and what is in them."""
    draw, records, ranks = Numbers(), {}, {}
    for number, (dataset, method, seed) in enumerate(TOLD):
        rank = np.random.default_rng(number).permutation(np.arange(USERS) % (8 + number)).astype(np.int32) + 1
        ranks[dataset, method, seed] = rank
        one = records[dataset, method, seed] = invented(dataset, method, seed, rank, draw)
        write_record(out, one, {"users": np.arange(USERS) * 3, "rank": rank, "tied": np.arange(USERS) % 3 == 0})
    return records, ranks


def cell(told: Mapping[str, float], signed: bool = False) -> str:
    sign = "+" if signed else ""
    return "{:{s}.3f} [{:{s}.3f}, {:{s}.3f}]".format(*(told[end] for end in ("value", "low", "high")), s=sign)


def figure(value: float) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, list[Record], Path]:
    out = tmp_path_factory.mktemp("report")
    return (*made(out), read_records(out), out)


def test_every_cell_of_quality_is_its_records(found: tuple[dict, dict, list[Record], Path]) -> None:
    told, _, records, _ = found
    text = render(records)
    for dataset, method, seed in TOLD:
        row = tables(text, dataset)["Quality"][method]
        assert row.pop("seeds") == "1"
        expected = {metric.upper(): cell(told[dataset, method, seed]["metrics"][metric]) for metric in METRICS}
        assert row == {"method": method, **expected}


def test_every_difference_is_the_method_minus_the_baseline(found: tuple[dict, dict, list[Record], Path]) -> None:
    _, ranks, records, _ = found
    text = render(records)
    for dataset, method, seed in TOLD:
        row = tables(text, dataset)["Differences in HR@1"][method]
        for baseline in ("sft", "popularity"):
            both = [ranks[dataset, name, seed] <= 1 for name in (method, baseline)]
            expected = "–" if method == baseline else cell(between(*both), signed=True)
            assert row[f"HR@1 minus {baseline}"] == expected
        alone = ranks[dataset, method, seed][np.arange(USERS) % 3 != 0] <= 1
        assert row["HR@1, untied users"] == cell(interval_of(alone.astype(float)))
        assert row["sd over seeds"] == "–"


def test_every_rate_is_in_its_column(found: tuple[dict, dict, list[Record], Path]) -> None:
    told, _, records, _ = found
    text = render(records)
    for dataset, method, seed in TOLD:
        speed = told[dataset, method, seed]["throughput"]
        expected = {
            "training tokens/s": figure(speed["training_tokens_per_s"]),
            "pairs/s": figure(speed["pairs_per_s"]),
            "scoring users/s": figure(speed["scoring_users_per_s"]),
            "peak MiB": figure(speed["peak_memory_bytes"] / 1024**2),
            **{key: speed[key] for key in ("impl", "attention", "device")},
            "threads": str(speed["threads"]),
            "training s": figure(speed["seconds"]["training"]),
            "scoring s": figure(speed["seconds"]["scoring"]),
        }
        assert tables(text, dataset)["Throughput"][method] == {"method": method, **expected}


def test_every_figure_of_preference_training_is_in_its_column(found: tuple[dict, dict, list[Record], Path]) -> None:
    told, _, records, _ = found
    text = render(records)
    for dataset in DATASETS:
        shown = tables(text, dataset)["Preference training"]
        assert set(shown) == {"dpo", "rosepo"}
        for method, row in shown.items():
            one = told[dataset, method, 3]["preference"]
            margins = [one["margin_accuracy"][when] for when in ("before", "after")]
            ends = [wilson(share["value"] * share["n"], share["n"]) for share in margins]
            before, after = (
                cell({"value": share["value"], "low": low, "high": high})
                for share, (low, high) in zip(margins, ends, strict=True)
            )
            epsilon, validation = (f"{one[name]['mean']:.3f} ± {one[name]['sd']:.3f}" for name in EPSILONS)
            assert row == {
                "method": method,
                "sampler": one["sampler"],
                "loss": one["loss"],
                "β": f"{one['beta']:g}",
                "pairs": f"{one['pairs_seen']:,}",
                "ε, training": epsilon,
                "ε, validation": validation,
                "accuracy before": before,
                "accuracy after": after,
                "top changed": f"{100 * one['changed_top']['share']:.1f} %",
            }


def test_every_figure_of_the_oracle_is_in_its_column(found: tuple[dict, dict, list[Record], Path]) -> None:
    told, _, records, _ = found
    text = render(records)
    for dataset in DATASETS:
        one, shown = told[dataset, "rosepo", 3]["oracle"], tables(text, dataset)["Preference oracle"]
        assert set(shown) == {"the oracle", "rosepo"}
        kinds = ", ".join(
            f"{kind} {fit['accuracy']:.2f} (τ {fit['tau']:.2f})" for kind, fit in one["temperatures"].items()
        )
        whole = f"uniform {cell(one['accuracy'])} (τ {one['uniform']['tau']:.2f})"
        for name, accuracy, gaps in (("the oracle", whole, one["uniform"]), ("rosepo", kinds, one)):
            assert shown[name] == {
                "pairs of": name,
                "accuracy and τ by kind of pair": accuracy,
                "ε gap, cross-fitted": cell(gaps["epsilon_gap"], signed=True),
                "ε gap, without folds": cell(gaps["epsilon_gap_without_folds"], signed=True),
            }


def test_captions_are_of_their_own_data_set(found: tuple[dict, dict, list[Record], Path]) -> None:
    told, _, records, _ = found
    text = render(records)
    for dataset in DATASETS:
        first = told[dataset, "popularity", 3]["data"]
        section = " ".join(text.split(f"## {dataset}\n")[1].split("###")[0].split())
        assert f"Source source-{dataset}, 60 test users, split `split-{dataset}`" in section
        assert f"profile `profile-{dataset}`, seed 3." in section
        assert f"the target among {20 + len(dataset)} candidates" in section
        assert f"(sha256 {dataset}-hash-" in section
        assert f"For {100 * first['tied_share']:.1f} % of the users" in section


def expected_rows(told: dict[str, Any], rank: np.ndarray, others: dict[str, np.ndarray]) -> dict[tuple[str, str], Any]:
    """(seed, metric) to (value, low, high, n) of one cell's rows of the CSV."""

    def ends(of: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(of.get(name, "") for name in ("value", "low", "high", "n"))

    rows: dict[tuple[str, str], Any] = {("3", metric): ends(told["metrics"][metric]) for metric in METRICS}
    for metric in METRICS:
        rows["all", metric] = ends(told["metrics"][metric])
        for baseline, other in others.items():
            rows["all", f"{metric}_minus_{baseline}"] = ends(between(value_of(metric, rank), value_of(metric, other)))
    speed = told["throughput"]
    plain = {name: speed[name] for name in speed if not isinstance(speed[name], str | dict)}
    plain |= {f"seconds_{name}": value for name, value in speed["seconds"].items()}
    if one := told["preference"]:
        plain |= {"pairs_seen": one["pairs_seen"], "beta": one["beta"]}
        plain |= {f"{name}_{part}": one[name][part] for name in EPSILONS for part in ("mean", "sd")}
        rows |= {("3", f"margin_accuracy_{when}"): ends(one["margin_accuracy"][when]) for when in ("before", "after")}
        rows["3", "changed_top"] = (one["changed_top"]["share"], "", "", one["changed_top"]["n"])
    if one := told["oracle"]:
        rows["3", "oracle_accuracy"], plain["oracle_tau_uniform"] = ends(one["accuracy"]), one["uniform"]["tau"]
        for gap in ("epsilon_gap", "epsilon_gap_without_folds"):
            rows["3", f"oracle_{gap}"], rows["3", f"oracle_{gap}_uniform"] = ends(one[gap]), ends(one["uniform"][gap])
        for kind, fit in one["temperatures"].items():
            plain[f"oracle_tau_{kind}"] = fit["tau"]
            rows["3", f"oracle_accuracy_{kind}"] = ends({**fit, "value": fit["accuracy"]})
    return rows | {("3", name): (value, "", "", "") for name, value in plain.items()}


def test_every_row_of_the_csv_is_its_records(found: tuple[dict, dict, list[Record], Path]) -> None:
    told, ranks, records, out = found
    text = write_report(out, records)[1].read_text(encoding="utf-8")
    written: dict[tuple[str, str], dict[tuple[str, str], tuple[Any, ...]]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        place = written.setdefault((row["dataset"], row["method"]), {})
        assert (row["seed"], row["metric"]) not in place
        assert row["kind"] == "real"
        place[row["seed"], row["metric"]] = tuple(row[end] for end in ("value", "low", "high", "n"))
    assert set(written) == {(dataset, method) for dataset, method, _ in TOLD}
    for dataset, method, seed in TOLD:
        others = {base: ranks[dataset, base, seed] for base in ("sft", "popularity") if base != method}
        expected = expected_rows(told[dataset, method, seed], ranks[dataset, method, seed], others)
        assert set(written[dataset, method]) == set(expected)
        for name, values in expected.items():
            shown = [float(one) if one else "" for one in written[dataset, method][name]]
            assert shown == [pytest.approx(one, rel=1e-6, abs=1e-9) if one != "" else "" for one in values], name


def test_the_smallest_visible_difference_is_from_sft(found: tuple[dict, dict, list[Record], Path]) -> None:
    """Half the widest interval of DPO and RosePO against SFT, times (1.9600 + 0.8416) / 1.9600."""
    _, ranks, records, _ = found
    text = render(records)
    for dataset in DATASETS:
        hits = {method: ranks[dataset, method, 3] <= 1 for method in METHODS}
        widths = [
            told["high"] - told["low"] for told in (between(hits[name], hits["sft"]) for name in ("dpo", "rosepo"))
        ]
        smallest = max(widths) / 2 * (1.959964 + 0.841621) / 1.959964
        section = " ".join(text.split(f"## {dataset}\n")[1].split("### Throughput")[0].split())
        assert f"a difference in HR@1 from sft smaller than about {smallest:.3f} is likely" in section
