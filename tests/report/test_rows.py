"""Which records are a row of which table: settings, seeds, age, data, protocols; and cells without a record."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from made_up import PROTOCOL, evaluation, failure, oracle, preference, ranks, read_back, record, write
from test_tables import column, row

from rosepo_bench.base import records
from rosepo_bench.base.failures import forget_failure, read_failures, write_failure
from rosepo_bench.report.comparison import comparisons
from rosepo_bench.report.quality import measured, minus
from rosepo_bench.report.tables import render, report_of, write_report


def flowing(text: str) -> str:
    return " ".join(text.split())


def test_runs_under_other_settings_are_rows_of_their_own(tmp_path: Path) -> None:
    rows = [record("dpo", ranks(n), settings={"loss.beta": beta, "rejected": 1}) for n, beta in ((30, 1.0), (36, 0.1))]
    text = render(read_back(tmp_path, *rows, record("sft", ranks(20))))
    assert column(text, "Quality") == ["sft", "dpo (loss.beta=1.0)", "dpo (loss.beta=0.1)"]
    assert row(text, "Quality", "dpo (loss.beta=0.1)")["HR@1"].startswith("0.360 [")
    assert row(text, "Quality", "dpo (loss.beta=1.0)")["seeds"] == "1"
    assert row(text, "Differences in HR@1", "dpo (loss.beta=0.1)")["HR@1 minus sft"].startswith("+0.160 [")
    assert column(text, "Preference training") == ["dpo (loss.beta=1.0)", "dpo (loss.beta=0.1)"]
    table = csv.DictReader(
        io.StringIO(write_report(tmp_path, report_of(records.read_records(tmp_path)[0]))[1].read_text())
    )
    assert {"dpo (loss.beta=1.0)", "dpo (loss.beta=0.1)"} < {one["method"] for one in table}


def test_settings_that_have_no_room_in_a_name_have_a_table(tmp_path: Path) -> None:
    """The names tell the row's hash; the table all that differs and nothing that is the same."""
    many = [{"loss.beta": 1.0, **{f"training.{letter}": value for letter in "abcdef"}} for value in (1, 2)]
    found = read_back(tmp_path, *(record("dpo", ranks(30), settings=one) for one in many), record("sft", ranks(30)))
    text, names = render(found), [f"dpo (row {one.row[:8]})" for one in found if one.method == "dpo"]
    for table in ("Quality", "Throughput", "Preference training"):
        assert [name for name in column(text, table) if name != "sft"] == names
    assert column(text, "Settings that differ") == [f"training.{letter}" for letter in "abcdef"]
    told = row(text, "Settings that differ", "training.d")
    assert [told[name] for name in names] == [str(one.settings["training.d"]) for one in found if one.method == "dpo"]
    assert "### Settings that differ" not in render([one for one in found if one.settings.get("training.a") != 2])


def test_no_two_rows_have_one_name(tmp_path: Path) -> None:
    """A number and a text that look alike, a method that is called like a row, and settings that are nested."""
    alike: list[dict[str, Any]] = [{"a": 1, "b": "1"}, {"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 2, "b": {"c": [1]}}]
    made = [record("dpo", ranks(30 + number), settings=one) for number, one in enumerate(alike)]
    text = render(read_back(tmp_path, *made, record("dpo (a=1, b=1, b.c=–)", ranks(40))))
    names = column(text, "Quality")
    assert set(names) == {
        'dpo (a=1, b="1", b.c=–)',
        "dpo (a=1, b=1, b.c=–) no. 1",
        "dpo (a=1, b=1, b.c=–) no. 2",
        "dpo (a=2, b=1, b.c=–)",
        r"dpo (a=2, b=–, b.c=\[1\])",
    }
    shown = sorted(row(text, "Quality", name)["HR@1"][:5] for name in names)
    assert shown == ["0.300", "0.310", "0.320", "0.330", "0.400"]


def test_a_long_name_leaves_its_table_room(tmp_path: Path) -> None:
    names = ["m" * 200 + "1", "m" * 200 + "2", "\\" * 30, "*" * 60]
    text = render(read_back(tmp_path, *(record(name, ranks(30), oracle=oracle()) for name in names)))
    assert max(map(len, text.splitlines())) <= 100
    assert len(set(column(text, "Quality"))) == 4
    assert all("(row " in name for name in column(text, "Quality"))


def test_each_row_is_compared_with_the_baseline_under_its_own_settings(tmp_path: Path) -> None:
    """SFT at two learning rates, and DPO on top of each: 36 − 30 and 50 − 20, and nothing across."""
    made = []
    for lr, sft, dpo in ((1e-3, 30, 36), (1e-4, 20, 50)):
        made.append(record("sft", ranks(sft), config={"sft": {"lr": lr}}, key=f"sft{lr}", row=f"{sft:064d}"))
        made.append(record("dpo", ranks(dpo), config={"sft": {"lr": lr}}, key=f"dpo{lr}", row=f"{dpo:064d}",
                           settings={"loss.beta": 1.0}))  # fmt: skip
    text = render(read_back(tmp_path, *made, record("popularity", ranks(10))))
    differences = {name: row(text, "Differences in HR@1", name) for name in column(text, "Differences in HR@1")}
    assert differences["dpo (sft.lr=0.001)"]["HR@1 minus sft"].startswith("+0.060 [")
    assert differences["dpo (sft.lr=0.0001)"]["HR@1 minus sft"].startswith("+0.300 [")
    assert differences["sft (sft.lr=0.0001)"]["HR@1 minus sft"] == "–"
    assert differences["sft (sft.lr=0.0001)"]["HR@1 minus popularity"].startswith("+0.100 [")
    assert differences["popularity"]["HR@1 minus sft"] == "–", "no one SFT is its own"


def test_of_records_of_one_row_and_seed_the_newest_counts(tmp_path: Path) -> None:
    for number, created in ((30, "2026-01-02"), (40, "2026-01-03"), (20, "2026-01-01")):
        write(tmp_path, record("sft", ranks(number), key=f"key{number}", created=created))
    write(tmp_path, record("sft", ranks(50), seed=1, created="2026-01-01"))
    text = render(records.read_records(tmp_path)[0])
    assert row(text, "Quality", "sft")["HR@1"].startswith("0.450 [")  # of 40 and 50
    assert "Of 3 records of sft, seed 0, under the same settings, the newest counts (seed0-key40)." in flowing(text)


def test_other_data_under_one_name_do_not_replace_older_ones(tmp_path: Path) -> None:
    write(tmp_path, record("sft", ranks(30), created="2026-01-01"))
    write(tmp_path, record("sft", ranks(40), {"digest": "0" * 64}, created="2026-01-02"))
    text = render(records.read_records(tmp_path)[0])
    assert text.count("### Throughput") == 2
    assert [row(part, "Quality", "sft")["HR@1"][:5] for part in text.split("\n## ")[1:]] == ["0.300", "0.400"]
    assert "newest" not in text


def test_two_protocols_are_two_sections_and_one_throughput(tmp_path: Path) -> None:
    both = {PROTOCOL: evaluation(ranks(30)), "candidates-mean": evaluation(ranks(30), score="mean")}
    text = render(read_back(tmp_path, record("sft", ranks(30), evaluations=both), record("dpo", ranks(30))))
    assert "Protocol `candidates-mean`" in flowing(text)
    assert text.count("### Quality") == 2
    assert text.count("### Throughput") == text.count("### Preference training") == 1
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## movielens, candidates-sum",
        "## movielens, candidates-mean",
    ]
    assert column(text.split("## movielens, candidates-mean")[1], "Quality") == ["sft"]


def test_a_protocol_of_another_package_is_told_by_its_facts(tmp_path: Path) -> None:
    told = {**evaluation(ranks(30)), "facts": {"beam": 5, "list": "catalogue"}}
    text = render(read_back(tmp_path, record("sft", ranks(30), evaluations={"generate": told})))
    assert 'Protocol `generate`: beam 5, list "catalogue".' in flowing(text)


def test_metrics_are_those_of_the_records(tmp_path: Path) -> None:
    """One that only a newer program knows, and records that lack one."""
    told = evaluation(ranks(30))
    harm = {"harm@3": {"value": 0.125, "low": 0.1, "high": 0.15, "n": 100}, "gini": {"value": 0.7}}
    lacking = {name: value for name, value in told["metrics"].items() if name != "hr@5"}
    rows = [
        record("sft", ranks(30), evaluations={PROTOCOL: {**told, "metrics": {**lacking, **harm}}}),
        record("sft", ranks(30), seed=1, evaluations={PROTOCOL: {**told, "metrics": {**told["metrics"], **harm}}}),
        record("dpo", ranks(30), evaluations={PROTOCOL: {**told, "metrics": {**told["metrics"], **harm}}}),
        record("popularity", ranks(30)),
    ]
    text = render(read_back(tmp_path, *rows))
    assert list(row(text, "Quality", "sft"))[2:] == ["HR@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10", "GINI", "HARM@3"]
    assert row(text, "Quality", "sft")["HR@5"] == "–"
    assert row(text, "Quality", "sft")["HARM@3"] == "0.125", "of two seeds the users' values would be needed"
    assert row(text, "Quality", "dpo")["HARM@3"] == "0.125 [0.100, 0.150]"
    assert row(text, "Quality", "dpo")["GINI"] == "0.700"
    assert row(text, "Quality", "popularity")["GINI"] == "–"


def test_cells_know_their_seeds_and_records(tmp_path: Path) -> None:
    rows = [record("sft", ranks(30 + seed), seed=seed) for seed in (0, 1)] + [record("dpo", ranks(36), seed=1)]
    (found,) = comparisons(read_back(tmp_path, *rows))
    cell = measured(found, "sft", "hr@1")
    assert (cell.value, cell.n, cell.seeds) == (0.305, 100, (0, 1))
    assert [path.parent.parent.name for path in cell.records] == ["sft", "sft"]
    cell = minus(found, "dpo", "sft")
    assert (cell.n, cell.seeds) == (100, (1,))
    assert [path.parent.parent.name for path in cell.records] == ["dpo", "sft"]


def test_a_failure_is_of_its_own_settings(tmp_path: Path) -> None:
    """DPO has a record; under another learning rate it failed, and the record's numbers are not that row's."""
    found = read_back(tmp_path, record("dpo", ranks(30), settings={"training.lr": 0.001}), record("sft", ranks(30)))
    text = render(found, [failure("movielens", "dpo", 0, "diverged", **{"training.lr": 1e30})])
    assert column(text, "Quality") == ["sft", "dpo (training.lr=0.001)", "dpo (training.lr=1e+30)"]
    assert row(text, "Quality", "dpo (training.lr=1e+30)")["HR@1"] == "failed"
    assert "- dpo (training.lr=1e+30), seed 0: failed: diverged\n" in text
    assert column(text, "Differences in HR@1") == ["sft", "dpo (training.lr=0.001)"]


def test_a_failure_ends_with_a_newer_record(tmp_path: Path) -> None:
    failed = failure("movielens", "sft", 0, "killed")
    path = write_failure(tmp_path, failed)
    (noted,) = read_failures(tmp_path)
    assert (noted.place, noted.reason, noted.key) == (failed.place, "killed", failed.key)
    assert "sft, seed 0: failed: killed" in render([], [noted])
    found = read_back(tmp_path, record("sft", ranks(30)))
    assert "killed" not in render(found, [noted])
    write_failure(tmp_path, failed)
    assert "sft, seed 0: failed: killed" in render(found, read_failures(tmp_path)), "it has failed since"
    forget_failure(tmp_path, "movielens", "sft", 1)
    assert path.exists()
    forget_failure(tmp_path, "movielens", "sft", 0)
    assert not path.exists()


def test_unusable_records_are_named_and_the_others_shown(tmp_path: Path) -> None:
    lost, changed = (write(tmp_path, record(name, ranks(30))) for name in ("dpo", "kto"))
    write(tmp_path, record("sft", ranks(30)))
    lost.with_name(f"{PROTOCOL}.npz").unlink()
    changed.write_text(changed.read_text().replace('"demo"', '"paper"'))
    found, problems = records.read_records(tmp_path)
    text = render(found, problems=problems)
    assert column(text, "Quality") == ["sft"]
    assert f"- {lost.with_name(f'{PROTOCOL}.npz')} is missing" in text
    assert f"- {changed} has changed since it was written" in text


def test_validation_during_training_has_a_table(tmp_path: Path) -> None:
    """Means over the seeds: kept at steps 20 and 40, with 0.4 and 0.6 there."""
    looks = {20: [[0, 0.1], [20, 0.4], [40, 0.3], [60, 0.2]], 40: [[0, 0.1], [20, 0.4], [40, 0.6], [60, 0.2]]}
    watched = [
        {"steps": 60, "planned_steps": 100, "best_step": best, "validation": values} for best, values in looks.items()
    ]
    rows = [record("dpo", ranks(30), seed=seed, training=training) for seed, training in enumerate(watched)]
    found = read_back(tmp_path, *rows, record("sft", ranks(30)))
    shown = row(render(found), "Validation during training", "dpo")
    assert shown == {
        "method": "dpo",
        "planned steps": "100",
        "steps": "60",
        "kept step": "30",
        "validation, kept": "0.500",
        "validation, last": "0.200",
    }
    table = csv.DictReader(io.StringIO(write_report(tmp_path, report_of(found))[1].read_text()))
    told = {(one["method"], one["seed"], one["metric"]): one["value"] for one in table}
    assert told["dpo", "1", "best_step"] == "40"
    assert told["dpo", "0", "validation_last"] == "0.2"
    assert "Validation during" not in render([one for one in found if one.method == "sft"])


def test_the_longest_names_of_the_demo_fit_a_terminal(tmp_path: Path) -> None:
    """With a best step, several seeds and the sampler of the longest name."""
    training = {"steps": 1157, "planned_steps": 1157, "best_step": 1094}
    told = preference(100, sampler="popularity", loss="rosepo")
    rows = [
        record(name, ranks(36 + seed), seed=seed, training=training, oracle=oracle(), told=told)
        for name in ("rosepo-popularity", "rosepo-self-hard")
        for seed in (0, 1)
    ]
    text = render(read_back(tmp_path, *rows, record("sft", ranks(30))))
    assert row(text, "Preference pairs", "rosepo-popularity")["steps"] == "best 1,094 of 1,157"
    assert max(map(len, text.splitlines())) <= 100


def test_users_may_be_names(tmp_path: Path) -> None:
    names = np.array([f"user {number}" for number in range(100)])
    for method, n in (("sft", 30), ("dpo", 36)):
        write(tmp_path, record(method, ranks(n)), users=names)
    text = render(records.read_records(tmp_path)[0])
    assert row(text, "Differences in HR@1", "dpo")["HR@1 minus sft"].startswith("+0.060 [")


def test_a_warning_where_sft_does_not_beat_popularity(tmp_path: Path) -> None:
    """Paired by user: of 100 users sft ranks 12 first, popularity 10 of these; or 40 and 10."""
    for sft, warned in ((12, True), (40, False)):
        found = read_back(tmp_path / str(sft), record("sft", ranks(sft)), record("popularity", ranks(10)))
        text = flowing(render(found))
        told = f"**Warning**: sft does not clearly beat popularity (HR@1 +{(sft - 10) / 100:.3f} ["
        assert (told in text) == warned
        assert ("**Warning**" in text) == warned


def test_unequal_seeds_are_said_without_a_baseline_too(tmp_path: Path) -> None:
    made = [record(name, ranks(30), seed=seed) for name, seed in (("dpo", 0), ("dpo", 1), ("rosepo", 0))]
    text = flowing(render(read_back(tmp_path, *made)))
    assert "Not all methods were run with the same seeds. Seed 0: rosepo; seeds 0, 1: dpo." in text
    made = [record(name, ranks(30), seed=seed) for name in ("dpo", "rosepo") for seed in (0, 1)]
    assert "the same seeds." not in flowing(render(read_back(tmp_path / "matched", *made)))


def test_methods_with_different_oracles_show_each(tmp_path: Path) -> None:
    """One row for an oracle that methods share; one each where its numbers differ."""
    other = {**oracle(), "accuracy": {"value": 0.7, "low": 0.65, "high": 0.75, "n": 1000}}
    made = [record(name, ranks(30), oracle=oracle()) for name in ("rosepo", "dpo")]
    assert column(render(read_back(tmp_path, *made)), "Preference oracle") == ["the oracle", "dpo", "rosepo"]
    made = [record(name, ranks(30), oracle=oracle()) for name in ("rosepo", "dpo")]
    text = render(read_back(tmp_path / "two", *made, record("kto", ranks(30), oracle=other)))
    assert column(text, "Preference oracle") == ["oracle of dpo", "oracle of kto", "dpo", "kto", "rosepo"]
    assert row(text, "Preference oracle", "oracle of kto")["accuracy and τ by kind of pair"].startswith("uniform 0.700")
