"""Golden counts: what the real files hold, and what each step of the preparation leaves of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rosepo_bench.base.config import DatasetConfig
from rosepo_bench.data import catalog, population, sequences
from rosepo_bench.data.types import Dataset

SMALL_RAW = dict.fromkeys(("raw", "merged", "unique"), (671, 9066, 100_004))
STEAM_RAW = dict.fromkeys(("raw", "merged", "unique"), (21704, 2503, 43940))
SHARED = {
    ("ml-latest-small", 1): {**SMALL_RAW, "core": (671, 9066, 100_004), "usable": (671, 9066, 100_004)},
    ("ml-latest-small", 5): {**SMALL_RAW, "core": (671, 3496, 90_072), "usable": (671, 3496, 90_072)},
    ("steam-australian", 1): {**STEAM_RAW, "core": (21_704, 2503, 43_940), "usable": (5316, 1947, 23_395)},
    ("steam-australian", 5): {**STEAM_RAW, "core": (1301, 330, 7663), "usable": (1301, 330, 7663)},
}
RENAMED = {("ml-latest-small", 1): {7103: "War of the Worlds (2005)", 7127: "Hamlet (2000)"}}  # each is two films
ML100K_RAW = {"raw": (943, 1682, 100_000), "merged": (943, 1664, 100_000), "unique": (943, 1664, 99_693)}
ML100K = {
    1: {**ML100K_RAW, "core": (943, 1664, 99_693), "usable": (943, 1664, 99_693)},
    5: {**ML100K_RAW, "core": (943, 1341, 98_996), "usable": (943, 1341, 98_996)},
}


def counts(dataset: Dataset) -> dict[str, tuple[int, int, int]]:
    return {step: (count["users"], count["items"], count["interactions"]) for step, count in dataset.counts.items()}


def check_invariants(dataset: Dataset, core: int) -> None:
    flat = np.concatenate(dataset.sequences)
    assert (dataset.users, dataset.items, len(flat)) == counts(dataset)["usable"]
    assert len(set(dataset.titles)) == dataset.items
    assert np.bincount(flat, minlength=dataset.items).min() >= core
    assert min(len(own) for own in dataset.sequences) >= max(core, 3)
    assert all(len(np.unique(own)) == len(own) for own in dataset.sequences)
    assert all((np.diff(own) >= 0).all() for own in dataset.times)


@pytest.mark.parametrize(("source", "core"), SHARED)
def test_counts_of_the_shared_files(shared_data: Path, tmp_path: Path, source: str, core: int) -> None:
    config = DatasetConfig(source=source, core=core)
    resolved = catalog.resolve(source, config, shared_data, tmp_path, offline=True)
    dataset = catalog.load(resolved, config)
    assert dataset.source.kind == resolved.kind == "real"
    assert counts(dataset) == SHARED[source, core]
    check_invariants(dataset, core)
    assert dataset.merged == ()
    assert dict(dataset.renamed) == RENAMED.get((source, core), {})


@pytest.mark.parametrize("core", ML100K)
def test_counts_of_movielens_100k(ml100k_cache: Path, core: int) -> None:
    config = DatasetConfig(source="ml-100k", core=core)
    dataset = catalog.load(catalog.resolve("ml-100k", config, None, ml100k_cache, offline=True), config)
    assert counts(dataset) == ML100K[core]
    check_invariants(dataset, core)
    assert {"Toy Story (1995)", "unkonwn"} <= set(dataset.titles)  # the file's spelling
    assert dataset.renamed == ()


def test_movielens_100k_lists_18_movies_twice(ml100k_cache: Path) -> None:
    config = DatasetConfig(source="ml-100k")
    dataset = catalog.load(catalog.resolve("ml-100k", config, None, ml100k_cache, offline=True), config)
    merged = {dataset.titles[item]: ids for item, ids in dataset.merged}
    assert len(merged) == 18
    assert merged["Chasing Amy (1997)"] == ("246", "268")
    assert all(len(ids) == 2 for ids in merged.values())


def test_415_of_943_test_targets_of_movielens_100k_are_picked_by_file_order(ml100k_cache: Path) -> None:
    config = DatasetConfig(source="ml-100k")
    dataset = catalog.load(catalog.resolve("ml-100k", config, None, ml100k_cache, offline=True), config)
    split = sequences.split(dataset, "leave_one_out")
    assert sequences.tied(dataset, split).sum() == 415
    assert sequences.tied_share(dataset, split) == pytest.approx(415 / 943)


def test_one_date_for_all_leaves_few_test_users(shared_data: Path, tmp_path: Path) -> None:
    config = DatasetConfig(source="ml-latest-small", split="temporal")
    resolved = catalog.resolve("ml-latest-small", config, shared_data, tmp_path, offline=True)
    dataset = catalog.load(resolved, config)
    split = sequences.split(dataset, "temporal")
    assert (int((split.validation >= 0).sum()), int((split.test >= 0).sum())) == (85, 82)


def test_the_users_of_one_review_stay_in_a_temporal_split(shared_data: Path, tmp_path: Path) -> None:
    config = DatasetConfig(source="steam-australian", split="temporal")
    resolved = catalog.resolve("steam-australian", config, shared_data, tmp_path, offline=True)
    assert counts(catalog.load(resolved, config))["usable"] == (21_704, 2503, 43_940)


def test_all_ties_of_movielens_ascend_in_the_movie(shared_data: Path, tmp_path: Path) -> None:
    """22 % of neighbouring ratings have one time, and GroupLens lists all of them by movie; a draw undoes it."""
    found = {}
    for ties in ("file", "shuffled"):
        config = DatasetConfig(source="ml-latest-small", ties=ties)
        dataset = catalog.load(catalog.resolve("ml-latest-small", config, shared_data, tmp_path, offline=True), config)
        found[ties] = population.facts(dataset, sequences.split(dataset, "leave_one_out"), 20)
    assert found["file"]["tied_neighbours"] == pytest.approx(0.2199, abs=5e-5)
    assert found["shuffled"]["tied_neighbours"] == found["file"]["tied_neighbours"]
    assert found["file"]["tied_ascending"] == 1.0
    assert found["shuffled"]["tied_ascending"] == pytest.approx(0.5, abs=0.02)
    assert found["file"]["cloned_share"] == pytest.approx(13 / 671)
    assert any("carries the item id" in remark for remark in population.remarks(found["file"]))
    assert not any("carries the item id" in remark for remark in population.remarks(found["shuffled"]))
