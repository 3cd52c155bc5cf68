"""Means over seeds and paired differences: over which seeds, which users, with which width. Every number by hand."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_hand import between, student_over_seeds, tables

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.intervals import Z95
from rosepo_bench.base.record_schema import row_of
from rosepo_bench.base.records import Record, read_records, write_record
from rosepo_bench.evaluation import statistics
from rosepo_bench.report.comparison import comparisons
from rosepo_bench.report.quality import difference
from rosepo_bench.report.tables import render, report_of, write_report

USERS = 40


def hits(*users: int) -> np.ndarray:
    """Ranks: 1 for the given users, 7 for the others."""
    rank = np.full(USERS, 7, np.int32)
    rank[list(users)] = 1
    return rank


def record(method: str, seed: int, rank: np.ndarray, **throughput: Any) -> dict[str, Any]:
    """What a report reads of a record, with its ranks."""
    family = {"sft": "language_model", "popularity": "recommender"}.get(method, "preference")
    data = {"source": "s", "kind": "real", "digest": "d", "split": "leave_one_out", "tied_share": 0.0}
    share = {name: {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10} for name in ("before", "after")}
    spread = {"mean": 0.1, "sd": 0.1}
    told = {"sampler": "uniform", "loss": "dpo", "beta": 1.0, "pairs_seen": 10, "margin_accuracy": share}
    told |= {"epsilon": spread, "validation_epsilon": spread, "changed_top": {"share": 0.5, "n": USERS}}
    speed = {"training_tokens_per_s": None, "pairs_per_s": None, "scoring_users_per_s": 1.0, "peak_memory_bytes": 1}
    speed |= {"impl": "-", "attention": "-", "device": "cpu", "threads": 1, "seconds": {"scoring": 1.0}}
    values = {f"hr@{k}": (rank <= k) * 1.0 for k in (1, 5, 10)}
    values |= {f"ndcg@{k}": np.where(rank <= k, 1 / np.log2(1.0 + rank), 0) for k in (5, 10)}
    return {
        "key": f"{method}{seed}",
        "row": row_of(method, {}, {}),
        "dataset": "games",
        "method": method,
        "seed": seed,
        "family": family,
        "profile": "p",
        "settings": {},
        "config": {},
        "environment": {},
        "training": None,
        "data": {**data, "candidates_sha256": "c" * 64, "users": len(rank)},
        "evaluations": {
            "candidates-sum": {
                "facts": {"name": "candidates", "size": 20, "score": "sum"},
                "metrics": {name: {"value": float(value.mean())} for name, value in values.items()},
            }
        },
        "diagnostics": {"preference": told if family == "preference" else None, "oracle": None},
        "throughput": {**speed, **throughput},
        "stages": {},
        "rank": rank,
    }


def written(out: Path, *made: dict[str, Any], users: dict[str, np.ndarray] | None = None) -> list[Record]:
    """The records from disk; ``users`` of some methods are others."""
    for one in made:
        rank = one.pop("rank")
        arrays = {"users": (users or {}).get(one["method"], np.arange(USERS) + 100), "rank": rank}
        write_record(out, one, {"candidates-sum": arrays})
    return read_records(out)[0]


SFT = {0: hits(0, 1, 2, 3), 1: hits(0, 1), 2: hits(*range(20))}
DPO = {0: hits(0, 1, 2, 5, 6), 1: hits(1, 7, 8), 3: hits(*range(30))}


def unequal(out: Path) -> list[Record]:
    """SFT has seeds 0, 1, 2 and DPO 0, 1, 3; popularity seed 2 alone."""
    made = [record("sft", seed, rank) for seed, rank in SFT.items()]
    made += [record("dpo", seed, rank) for seed, rank in DPO.items()]
    return written(out, *made, record("popularity", 2, hits(9)))


def seen(rank: np.ndarray) -> np.ndarray:
    return (rank == 1) * 1.0


def test_a_difference_is_over_the_seeds_that_both_have(tmp_path: Path) -> None:
    """Seeds 0 and 1 on both sides: (5 + 3 − 4 − 2) / 2 / 40 = 0.025. All seeds on each side would say +0.100."""
    row = tables(render(unequal(tmp_path)), "games")["Differences in HR@1"]["dpo"]
    both = np.array([seen(DPO[seed]) - seen(SFT[seed]) for seed in (0, 1)])
    low, high = student_over_seeds(both)
    assert both.mean() == pytest.approx(0.025)
    assert row["HR@1 minus sft"] == f"+0.025 [{low:+.3f}, {high:+.3f}]"
    assert row["HR@1 minus popularity"] == "–"
    other = tables(render(read_records(tmp_path)[0]), "games")["Differences in HR@1"]
    assert other["popularity"]["HR@1 minus sft"] != "–"


def test_one_common_seed_is_a_difference_of_one_seed(tmp_path: Path) -> None:
    """Popularity against SFT's seed 2: 1 − 20 of 40 users, with the interval for a single seed."""
    row = tables(render(unequal(tmp_path)), "games")["Differences in HR@1"]["popularity"]
    told = between(seen(hits(9)), seen(SFT[2]))
    assert told["value"] == pytest.approx(-19 / 40)
    assert row["HR@1 minus sft"] == f"-0.475 [{told['low']:+.3f}, {told['high']:+.3f}]"
    swapped = tables(render(read_records(tmp_path)[0]), "games")["Differences in HR@1"]["sft"]
    assert swapped["HR@1 minus popularity"] == f"+0.475 [{-told['high']:+.3f}, {-told['low']:+.3f}]"


def test_seeds_left_out_are_named(tmp_path: Path) -> None:
    text = render(unequal(tmp_path))
    assert "Not all methods were run with the same seeds." in " ".join(text.split())
    lines = [line for line in text.splitlines() if line.startswith("- ")]
    assert lines == [
        "- popularity minus sft: seed 2, which both have; left out: seeds 0, 1 of sft",
        "- sft minus popularity: seed 2, which both have; left out: seeds 0, 1 of sft",
        "- dpo minus sft: seeds 0, 1, which both have; left out: seed 3 of dpo and seed 2 of sft",
        "- dpo minus popularity: no seed in common (seeds 0, 1, 3 of dpo and seed 2 of popularity)",
    ]
    matched = written(tmp_path / "matched", *(record(m, s, hits(s)) for m in ("sft", "dpo") for s in (0, 4)))
    assert "same seeds." not in " ".join(render(matched).split())
    assert "left out" not in render(matched)


def test_the_csv_says_the_same(tmp_path: Path) -> None:
    text = write_report(tmp_path, report_of(unequal(tmp_path)))[1].read_text(encoding="utf-8")
    rows = {(r["method"], r["seed"], r["metric"]): r for r in csv.DictReader(io.StringIO(text))}
    both = np.array([seen(DPO[seed]) - seen(SFT[seed]) for seed in (0, 1)])
    found = rows["dpo", "all", "hr@1_minus_sft"]
    expected = (both.mean(), *student_over_seeds(both), USERS)
    assert [float(found[end]) for end in ("value", "low", "high", "n")] == pytest.approx(expected)
    assert ("dpo", "all", "hr@1_minus_popularity") not in rows
    assert ("dpo", "all", "ndcg@10_minus_popularity") not in rows
    gains = [sum(np.where(r[s] == 1, 1.0, 1 / 3) for s in (0, 1)) / 2 for r in (DPO, SFT)]  # 1 / log2(1 + 7)
    assert float(rows["dpo", "all", "ndcg@10_minus_sft"]["value"]) == pytest.approx((gains[0] - gains[1]).mean())


def test_means_and_spread_are_over_all_seeds_of_a_method(tmp_path: Path) -> None:
    """The interval covers seeds and users; the deviation is of the seeds' means, with n − 1."""
    text = render(unequal(tmp_path))
    means = [len(np.flatnonzero(rank == 1)) / USERS for rank in SFT.values()]
    low, high = student_over_seeds(np.array([seen(rank) for rank in SFT.values()]))
    shown = tables(text, "games")
    assert shown["Quality"]["sft"]["HR@1"] == f"{np.mean(means):.3f} [{max(low, 0):.3f}, {high:.3f}]"
    assert shown["Quality"]["sft"]["seeds"] == "3"
    spread = np.sqrt(sum((mean - np.mean(means)) ** 2 for mean in means) / 2)
    assert shown["Differences in HR@1"]["sft"]["sd over seeds"] == f"{spread:.3f}"
    assert shown["Differences in HR@1"]["popularity"]["sd over seeds"] == "–"


def test_rates_are_means_over_seeds_and_memory_the_highest(tmp_path: Path) -> None:
    made = [
        record("sft", seed, hits(1), scoring_users_per_s=rate, peak_memory_bytes=mib * 2**20, pairs_per_s=pairs)
        for seed, rate, mib, pairs in ((0, 101.0, 700, 10.5), (1, 202.0, 300, None), (2, 606.0, 500, 21.7))
    ]
    row = tables(render(written(tmp_path, *made)), "games")["Throughput"]["sft"]
    assert (row["users/s"], row["peak MiB"], row["pairs/s"]) == ("303", "700", "16.1")


@pytest.mark.parametrize("users", [np.arange(USERS) + 101, np.arange(USERS)[::-1] + 100])
def test_other_users_are_refused(users: np.ndarray, tmp_path: Path) -> None:
    """Other ids, or the same in another order: rows would be paired that are not one user's."""
    records = written(tmp_path, record("sft", 0, hits(1)), record("dpo", 0, hits(2)), users={"dpo": users})
    with pytest.raises(UserError, match=r"sft \(seed 0\) and dpo \(seed 0\) were evaluated on different users"):
        render(records)


def test_pairs_are_of_one_user(tmp_path: Path) -> None:
    """The same hits on other users: equal means, but a difference with a width of its own."""
    same = written(tmp_path, record("sft", 0, hits(1, 2, 3)), record("dpo", 0, hits(1, 2, 3)))
    moved = written(tmp_path / "moved", record("sft", 0, hits(1, 2, 3)), record("dpo", 0, hits(11, 12, 13)))
    narrow, wide = (difference(comparisons(records)[0], "dpo", "sft") for records in (same, moved))
    assert narrow is not None
    assert wide is not None
    assert narrow.interval.value == wide.interval.value == 0
    assert wide.interval.high == pytest.approx(2 * narrow.interval.high)  # 8 of 42 against 2 of 42 under the root


def test_the_paired_interval_of_a_tiny_case() -> None:
    """Five users, two gained and one lost: p̃ = 3/7 and 2/7, their difference 1/7, its standard error
    sqrt((5/7 − 1/49) / 7) = sqrt(34/343)."""
    found = statistics.paired(np.array([1.0, 1, 1, 0, 0]), np.array([0.0, 0, 1, 1, 0]))
    half = Z95 * np.sqrt(34 / 343)
    assert (found.value, found.n) == (pytest.approx(0.2), 5)
    assert (found.low, found.high) == pytest.approx((1 / 7 - half, 1 / 7 + half))
    # Halves, as of two seeds: 0.5, 0, -0.5, 1; mean 1/4, variance 5/12, t of three degrees 3.182446.
    found = statistics.paired(np.array([0.5, 1, 0.5, 1]), np.array([0.0, 1, 1, 0]))
    half = 3.182446 * np.sqrt(5 / 12 / 4)
    assert [found.value, found.low, found.high] == pytest.approx([0.25, 0.25 - half, 0.25 + half], abs=1e-6)
    assert statistics.seed_spread([np.array([0.0, 1.0]), np.array([1.0, 1.0])]) == pytest.approx(0.5 / np.sqrt(2))
