"""Accuracy, harm and popularity have tables of their own; differences are in the primary metric, with a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_up import PROTOCOL, ranks, record, write
from test_tables import row

from rosepo_bench.base import records
from rosepo_bench.evaluation import statistics
from rosepo_bench.evaluation.metrics.base import Predictions, measure
from rosepo_bench.evaluation.significance import holm, mid_p
from rosepo_bench.report.tables import render

USERS = 100


def written(out: Path, method: str, named: np.ndarray, seed: int = 0) -> None:
    """A record whose outputs name the items of ``named``, -1 for none; items below 5 have been met."""
    arrays = {"named": named, "valid": named >= 0, "seen": (named >= 0) & (named < 5)}
    found = Predictions(users=np.arange(USERS), **arrays)
    told = {"facts": {"name": "generate", "decoding": "greedy"}, "metrics": measure(found, found.gives)}
    write(out, record(method, ranks(USERS), seed=seed, evaluations={"generate": told}), **arrays)


def read(out: Path) -> str:
    found, problems = records.read_records(out)
    assert problems == []
    return render(found)


def outputs(wrong: int) -> np.ndarray:
    return np.where(np.arange(USERS) < wrong, -1, np.arange(USERS) % 20)


def test_harm_has_a_table_and_is_compared_by_the_out_of_catalogue_rate(tmp_path: Path) -> None:
    written(tmp_path, "sft", outputs(10))
    written(tmp_path, "dpo", outputs(30))
    text = read(tmp_path)
    assert "### Quality" not in text
    found = row(text, "Harm", "dpo")
    assert found["OUT-OF-CATALOGUE"].startswith("0.300 [")
    assert found["VALID"].startswith("0.700 [")
    assert found["SEEN"].startswith("0.150 [")
    compared = row(text, "Differences in OUT-OF-CATALOGUE", "dpo")
    assert compared["OUT-OF-CATALOGUE minus sft"].startswith("+0.200 [")
    assert compared["p (sft)"] == "<0.001"
    assert mid_p(20, 0) < 0.001
    assert "a difference in OUT-OF-CATALOGUE from sft" in " ".join(text.split())
    assert "minus popularity" not in text


def test_popularity_stands_apart_from_accuracy(tmp_path: Path) -> None:
    arrays = {"top": np.arange(USERS) % 4, "counts": np.array([40, 30, 20, 10]), "target": np.zeros(USERS, dtype=int)}
    found = Predictions(users=np.arange(USERS), rank=ranks(30), **arrays)
    told = {"facts": {"name": "candidates", "size": 20, "score": "sum"}, "metrics": measure(found, found.gives)}
    write(tmp_path, record("sft", ranks(30), evaluations={PROTOCOL: told}), **arrays)
    text = read(tmp_path)
    assert row(text, "Quality", "sft").keys() == {"method", "seeds", "HR@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10"}
    popular = row(text, "Popularity and diversity", "sft")
    assert popular["ARP@1"].startswith("25.000 [")
    assert popular["COVERAGE@1"] == "1.000"
    assert "ARP: mean training interactions." in text


def test_p_is_adjusted_for_the_rows_of_the_table(tmp_path: Path) -> None:
    hits = {"sft": 30, "dpo": 37, "cdpo": 40, "ipo": 31}
    for method, n in hits.items():
        write(tmp_path, record(method, ranks(n)))
    text = read(tmp_path)
    compared = [name for name in hits if name != "sft"]
    expected = dict(zip(compared, holm([mid_p(hits[name] - 30, 0) for name in compared]), strict=True))
    for name in compared:
        found = row(text, "Differences in HR@1", name)
        assert found["p (sft)"] == f"{expected[name]:.3f}"
        difference = (ranks(hits[name]) == 1) * 1.0 - (ranks(30) == 1)
        assert found["d (sft)"] == f"{difference.mean() / difference.std(ddof=1):+.3f}"
    assert row(text, "Differences in HR@1", "sft")["p (sft)"] == "–"


def test_several_seeds_are_compared_seed_by_seed(tmp_path: Path) -> None:
    hits = {"sft": (30, 20, 35), "dpo": (36, 24, 35)}
    for method, counts in hits.items():
        for seed, n in enumerate(counts):
            write(tmp_path, record(method, ranks(n), seed=seed))
    found = row(read(tmp_path), "Differences in HR@1", "dpo")
    first, second = ([(ranks(n) == 1) * 1.0 for n in hits[name]] for name in ("dpo", "sft"))
    expected = statistics.difference(first, second)
    assert found["HR@1 minus sft"] == (
        f"{expected.interval.value:+.3f} [{expected.interval.low:+.3f}, {expected.interval.high:+.3f}]"
    )
    assert found["p (sft)"] == f"{expected.p_value:.3f}"
    users = statistics.paired(statistics.over_seeds(first), statistics.over_seeds(second))
    assert expected.interval.high - expected.interval.low > 1.2 * (users.high - users.low)
    with pytest.raises(AssertionError):
        statistics.difference(first, second[:2])
