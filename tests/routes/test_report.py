"""Every number of the report is the record's own: in made-up records no two numbers are alike, and each stands in its
own row and column of the tables. The CSV: test_report_csv.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from by_hand import between, tables, wilson
from invented import DATASETS, EPSILONS, METHODS, METRICS, PROTOCOL, TOLD, USERS, interval_of, made

from rosepo_bench.base.records import Record, read_records
from rosepo_bench.report.tables import render


def cell(told: Mapping[str, float], signed: bool = False) -> str:
    sign = "+" if signed else ""
    return "{:{s}.3f} [{:{s}.3f}, {:{s}.3f}]".format(*(told[end] for end in ("value", "low", "high")), s=sign)


def figure(value: float) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, list[Record], Path]:
    out = tmp_path_factory.mktemp("report")
    return (*made(out), read_records(out)[0], out)


def test_every_cell_of_quality_is_its_records(found: tuple[dict, dict, list[Record], Path]) -> None:
    told, _, records, _ = found
    text = render(records)
    for dataset, method, seed in TOLD:
        row = tables(text, dataset)["Quality"][method]
        assert row.pop("seeds") == "1"
        expected = {
            metric.upper(): cell(told[dataset, method, seed]["evaluations"][PROTOCOL]["metrics"][metric])
            for metric in METRICS
        }
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
            "tokens/s": figure(speed["training_tokens_per_s"]),
            "pairs/s": figure(speed["pairs_per_s"]),
            "users/s": figure(speed["scoring_users_per_s"]),
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
        assert set(shown) == set(tables(text, dataset)["Preference pairs"]) == {"dpo", "rosepo"}
        for method, row in shown.items():
            one = told[dataset, method, 3]["diagnostics"]["preference"]
            margins = [one["margin_accuracy"][when] for when in ("before", "after")]
            ends = [wilson(share["value"] * share["n"], share["n"]) for share in margins]
            before, after = (
                cell({"value": share["value"], "low": low, "high": high})
                for share, (low, high) in zip(margins, ends, strict=True)
            )
            epsilon, validation = (f"{one[name]['mean']:.3f} ± {one[name]['sd']:.3f}" for name in EPSILONS)
            steps = told[dataset, method, 3]["training"]["planned_steps"]
            assert tables(text, dataset)["Preference pairs"][method] == {
                "method": method,
                "sampler": one["sampler"],
                "loss": one["loss"],
                "β": f"{one['beta']:g}",
                "K": str(one["rejected"]),
                "pairs": f"{one['pairs_seen']:,}",
                "steps": f"best {steps - 1000:,} of {steps:,}" if method == "rosepo" else f"{steps:,}",
            }
            assert row == {
                "method": method,
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
        one, shown = told[dataset, "rosepo", 3]["diagnostics"]["oracle"], tables(text, dataset)["Preference oracle"]
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
        assert f"Protocol `{PROTOCOL}`: the target among {20 + len(dataset)} candidates" in section
        assert f"(sha256 {dataset}-hash-" in section
        assert f"For {100 * first['tied_share']:.1f} % of the users" in section


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
