"""The report from made-up records: the whole text once, then what each part must say."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import PROTOCOL, evaluation, failure, measure, oracle, preference, ranks, read_back, record

from rosepo_bench.base import store
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.failures import Failure
from rosepo_bench.base.records import Record, read_records
from rosepo_bench.evaluation import statistics
from rosepo_bench.report.tables import render, report_of, write_report

GOLDEN = Path(__file__).with_name("golden.md")


def row(text: str, table: str, method: str) -> dict[str, str]:
    """One row below the heading ``table``, by column; a wide table goes on in further ones below."""
    found: dict[str, str] = {}
    for block in _blocks(text, table):
        header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines())
        found |= dict(zip(header, next(one for one in rows if one[0] == method), strict=True))
    return found


def column(text: str, table: str) -> list[str]:
    """The first column of a table."""
    return [line.split("|")[1].strip() for line in _blocks(text, table)[0].splitlines()[2:]]


def _blocks(text: str, table: str) -> list[str]:
    """The parts of the table below the heading ``table``."""
    blocks = text.split(f"### {table}\n\n", 1)[1].split("\n\n")
    return list(itertools.takewhile(lambda block: block.startswith("|"), blocks))


def scenario(out: Path) -> tuple[list[Record], list[Failure]]:
    steam = {"kind": "synthetic", "source": "steam-replica", "tied_share": None}
    records = [record(name, ranks(n)) for name, n in (("sft", 30), ("popularity", 10), ("sasrec", 35))]
    records.append(record("dpo", ranks(30), told=preference(100, changed_top={"share": 0.004, "n": 100})))
    records.append(record("rosepo", ranks(36), oracle=oracle()))
    records += [record(name, ranks(20), dataset="steam", data=steam) for name in ("sft", "popularity")]
    failures = [
        failure("steam", "rosepo", 0, "disk full while writing a|b"),
        failure("steam", "dpo"),
        failure("goodreads", "sft"),
    ]
    return read_back(out, *records), failures


def test_golden_report(tmp_path: Path) -> None:
    """The whole text. After an intended change: read the file that the failure names, make it golden.md."""
    text = render(*scenario(tmp_path))
    (tmp_path / "golden.md").write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8"), f"see {tmp_path / 'golden.md'}"


def test_report_fits_a_terminal_and_depends_on_nothing_else(tmp_path: Path) -> None:
    records, failures = scenario(tmp_path)
    text = render(records, failures)
    assert max(map(len, text.splitlines())) <= 100
    assert render(read_records(tmp_path)[0], failures) == text


def test_methods_stand_in_a_sensible_order(tmp_path: Path) -> None:
    names = ["mine", "rosepo", "dpo", "sft", "zero_shot", "sasrec", "popularity", "kto"]
    text = render(read_back(tmp_path, *(record(name, ranks(30)) for name in names)))
    expected = ["popularity", "sasrec", "zero_shot", "sft", "dpo", "kto", "rosepo", "mine"]
    for table in ("Quality", "Differences in HR@1", "Throughput"):
        assert column(text, table) == expected
    assert column(text, "Preference training") == expected[4:]


def test_numbers_are_the_statistics(tmp_path: Path) -> None:
    text = render(
        read_back(tmp_path, record("sft", ranks(30)), record("rosepo", ranks(36)), record("popularity", ranks(10)))
    )
    assert row(text, "Quality", "sft")["HR@1"] == "0.300 [0.219, 0.396]"
    assert row(text, "Quality", "sft")["HR@5"].startswith("0.400 [")
    assert row(text, "Quality", "sft")["HR@10"].startswith("0.500 [")
    assert row(text, "Quality", "sft")["NDCG@5"].startswith(f"{0.3 + 0.1 / np.log2(4):.3f} [")
    difference = row(text, "Differences in HR@1", "rosepo")
    expected = statistics.paired((ranks(36) == 1).astype(float), (ranks(30) == 1).astype(float))
    assert difference["HR@1 minus sft"] == f"+0.060 [{expected.low:+.3f}, {expected.high:+.3f}]"
    assert difference["HR@1 minus popularity"].startswith("+0.260 [+0.")
    assert row(text, "Differences in HR@1", "sft")["HR@1 minus sft"] == "–"


def test_seeds_are_averaged_within_users(tmp_path: Path) -> None:
    seeds = [ranks(30), ranks(40)]
    rows = [record("sft", rank, seed=seed) for seed, rank in enumerate(seeds)]
    text = render(read_back(tmp_path, *rows, record("dpo", ranks(35), seed=0)))
    found = row(text, "Quality", "sft")
    mean = (seeds[0] == 1) / 2 + (seeds[1] == 1) / 2
    half = 1.984217 * mean.std(ddof=1) / 10
    assert found["seeds"] == "2"
    assert found["HR@1"] == f"0.350 [{0.35 - half:.3f}, {0.35 + half:.3f}]"
    assert row(text, "Differences in HR@1", "sft")["sd over seeds"] == f"{0.1 / np.sqrt(2):.3f}"
    assert row(text, "Differences in HR@1", "dpo")["sd over seeds"] == "–"
    assert "seeds 0, 1." in text


def test_seeds_share_their_validation_pairs(tmp_path: Path) -> None:
    """Two seeds of 510 of 1000 are not 1020 of 2000: the interval keeps the width of one."""
    rows = [record("rosepo", ranks(30), seed=seed, oracle=oracle()) for seed in (0, 1)]
    text = render(read_back(tmp_path, *rows))
    one = statistics.wilson(510, 1000)
    assert row(text, "Preference training", "rosepo")["accuracy before"] == f"0.510 [{one.low:.3f}, {one.high:.3f}]"
    assert row(text, "Preference oracle", "the oracle")["accuracy and τ by kind of pair"].startswith(
        "uniform 0.600 [0.569,"
    )


def test_no_effect_is_said_aloud(tmp_path: Path) -> None:
    shares = {"dpo": 0.0099, "kto": 0.01}
    rows = [record(m, ranks(30), told=preference(100, changed_top={"share": s, "n": 100})) for m, s in shares.items()]
    text = render(read_back(tmp_path, *rows, record("sft", ranks(30))))
    lines = [line for line in text.splitlines() if "no effect" in line]
    assert lines == ["- dpo: no effect: top item changed for 1.0 % of users"]


def test_synthetic_numbers_are_called_so(tmp_path: Path) -> None:
    text = render(read_back(tmp_path, record("sft", ranks(30), dataset="steam", data={"kind": "synthetic"})))
    assert "## steam: synthetic data\n\n**Synthetic data**: a replica" in text
    real = render(read_back(tmp_path / "real", record("sft", ranks(30))))
    assert "ynthetic" not in real
    assert "For 44.0 % of the users" in real


def test_tied_users_are_left_out_where_they_are_known(tmp_path: Path) -> None:
    tied = np.arange(100) < 20
    text = render(read_back(tmp_path, record("sft", ranks(30)), tied=tied))
    assert row(text, "Differences in HR@1", "sft")["HR@1, untied users"].startswith("0.125 [")  # 10 of 80
    text = render(read_back(tmp_path / "all", record("sft", ranks(30)), tied=np.ones(100, bool)))
    assert row(text, "Differences in HR@1", "sft")["HR@1, untied users"] == "–"


@pytest.mark.parametrize(
    ("change", "said", "titles"),
    [
        ({"profile": "reference"}, 'profile "reference"', [", profile demo", ", profile reference"]),
        (
            {"evaluations": {PROTOCOL: evaluation(ranks(20), score="mean")}},
            '"score": "mean"',
            [" (1 of 2)", " (2 of 2)"],
        ),
        (
            {"evaluations": {"candidates-mean": evaluation(ranks(20))}},
            'protocol "candidates-mean"',
            [", candidates-sum", ", candidates-mean"],
        ),
        (
            {"data": {"candidates_sha256": "e" * 64}},
            'candidates "' + "e" * 64,
            [", candidates cccccccccccc", ", candidates eeeeeeeeeeee"],
        ),
        ({"data": {"split": "temporal"}}, 'split "temporal"', [", split leave_one_out", ", split temporal"]),
        ({"data": {"digest": "0" * 64}}, 'data "' + "0" * 64, [", data dddddddddddd", ", data 000000000000"]),
        (
            {"data": {"noise": {"law": "uniform", "rate": 0.1, "replaced": 9}}},
            'noise {"law": "uniform", "rate": 0.1}',
            [", noise none", ", noise uniform 0.1"],
        ),
    ],
)
def test_what_cannot_be_compared_stands_apart(
    tmp_path: Path, change: dict[str, Any], said: str, titles: list[str]
) -> None:
    text = render(read_back(tmp_path, record("dpo", ranks(30)), record("sft", ranks(20), **change)))
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [f"## movielens{title}" for title in titles]
    second = text.split(headings[1])[1]
    assert column(second, "Quality") == ["sft"]
    assert said in " ".join(second.split())
    assert "minus sft" not in column(text, "Differences in HR@1")


def test_methods_of_different_sft_models_are_told(tmp_path: Path) -> None:
    rows = [record(name, ranks(30), stages={"sft": key}) for name, key in (("dpo", "x"), ("kto", "y"))]
    assert "seed 0 start from 2 different SFT models" in " ".join(render(read_back(tmp_path, *rows)).split())


AMD = {"processor": "AMD EPYC", "packages": {"torch": "2.13.0"}}
INTEL = {"processor": "Intel(R) Xeon(R)", "packages": {"torch": "2.13.0"}}


@pytest.mark.parametrize(
    ("environments", "said"),
    [
        ((INTEL, AMD), ["processors: AMD EPYC, Intel(R) Xeon(R)."]),
        ((AMD, {**AMD, "packages": {"torch": "2.12.1"}}), ["torch versions: 2.12.1, 2.13.0."]),
        ((AMD, {**INTEL, "packages": {"torch": "2.12.1"}}), ["processors: ", "torch versions: "]),
        ((AMD, AMD), []),
        ((AMD, {}), []),  # a record of an older program, which does not tell
    ],
)
def test_records_of_different_machines_are_told(
    tmp_path: Path, environments: tuple[dict[str, Any], dict[str, Any]], said: list[str]
) -> None:
    rows = [record(name, ranks(30), environment=one) for name, one in zip(("sft", "dpo"), environments, strict=True)]
    text = " ".join(render(read_back(tmp_path, *rows)).split())
    assert text.count("Records of different ") == len(said)
    assert all(f"Records of different {one}" in text for one in said)


def test_different_users_are_refused(tmp_path: Path) -> None:
    records = read_back(tmp_path, record("sft", ranks(30)), record("dpo", ranks(30, users=90)))
    with pytest.raises(UserError, match=r"sft \(seed 0\) and dpo \(seed 0\) were evaluated on different users"):
        render(records)


def test_a_record_that_contradicts_its_predictions_is_left_out(tmp_path: Path) -> None:
    said = {**evaluation(ranks(30)), "metrics": measure(ranks(31))}
    made = record("sft", ranks(30), evaluations={PROTOCOL: said})
    with pytest.raises(UserError, match=r"says hr@1 = 0\.310000, but its predictions give 0\.300000") as alone:
        render(read_back(tmp_path, made))
    text = render(read_back(tmp_path, record("dpo", ranks(30))))
    assert "Records that cannot be used are left out:\n\n- " in text
    assert "sft/seed0-" in str(alone.value)
    assert "- " + str(alone.value).removeprefix("no records to report: ").partition(" says")[0] in text
    assert column(text, "Quality") == ["dpo"]


def test_nothing_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="no records to report"):
        render([])


def test_the_smallest_visible_difference_is_that_of_the_preference_methods(tmp_path: Path) -> None:
    rows = [record(name, ranks(n)) for name, n in (("sft", 30), ("popularity", 10), ("dpo", 36))]
    smallest = statistics.detectable(statistics.paired((ranks(36) == 1) * 1.0, (ranks(30) == 1) * 1.0))
    text = " ".join(render(read_back(tmp_path, *rows)).split())
    assert f"difference in HR@1 from sft smaller than about {smallest:.3f} is likely" in text
    alone = render(read_back(tmp_path / "alone", record("sft", ranks(30))))
    assert "There is no second method with the same seeds to compare with." in alone


def test_failed_and_missing_cells_are_rows(tmp_path: Path) -> None:
    failures = [
        failure("movielens", "rosepo", 0, "out of\nmemory"),
        failure("movielens", "dpo"),
        failure("movielens", "sft", 1, "killed"),
    ]
    text = render(read_back(tmp_path, record("sft", ranks(30))), failures)
    assert row(text, "Quality", "rosepo")["HR@1"] == "failed"
    assert row(text, "Quality", "dpo")["HR@1"] == "missing"
    assert row(text, "Quality", "sft")["HR@1"].startswith("0.300")
    assert "- sft, seed 1: failed: killed\n- dpo, seed 0: missing\n- rosepo, seed 0: failed: out of memory\n" in text
    alone = render([], failures)
    assert column(alone, "Quality") == ["sft", "dpo", "rosepo"]
    assert "### Throughput" not in alone


def test_names_cannot_break_the_table(tmp_path: Path) -> None:
    text = render(read_back(tmp_path, record("a|b", ranks(30)), record("sft", ranks(30))))
    assert r"| a\|b" in text
    assert "| a|b" not in text


def test_absent_values_are_dashes(tmp_path: Path) -> None:
    bare = preference(100, validation_epsilon=None, margin_accuracy={"before": None, "after": None})
    text = render(read_back(tmp_path, record("simpo", ranks(30), told=bare), record("popularity", ranks(10))))
    found = row(text, "Preference training", "simpo")
    assert [found[name] for name in ("ε, validation", "accuracy before", "accuracy after")] == ["–"] * 3
    assert found["ε, training"] == "0.213 ± 0.081"
    assert row(text, "Throughput", "popularity")["training s"] == "–"
    assert "### Preference oracle" not in text


def test_written_files_hold_every_number_once(tmp_path: Path) -> None:
    rows = [record("sft", ranks(30 + seed), seed=seed) for seed in (0, 1)] + [
        record("rosepo", ranks(36), oracle=oracle())
    ]
    records = read_back(tmp_path, *rows)
    report, results = write_report(tmp_path, report_of(records))
    assert (report, results) == (tmp_path / "report.md", tmp_path / "results.csv")
    assert report.read_text(encoding="utf-8").startswith(f"{render(records)}\n<!-- made from 3 records: ")
    table = list(csv.DictReader(io.StringIO(results.read_text(encoding="utf-8"))))
    assert list(table[0]) == [
        *("dataset", "section", "kind", "profile", "protocol", "method", "seed", "metric"),
        *("value", "low", "high", "n", "record", "processor", "torch"),
    ]
    found = {(one["method"], one["seed"], one["metric"]): one for one in table}
    assert len(found) == len(table)
    assert float(found["sft", "1", "hr@1"]["value"]) == 0.31
    assert float(found["sft", "all", "hr@1"]["value"]) == 0.305
    assert float(found["rosepo", "all", "ndcg@10_minus_sft"]["value"]) > 0
    assert found["rosepo", "0", "oracle_tau_self_hard"]["value"] == "1.234"
    assert found["rosepo", "0", "peak_memory_bytes"]["value"] == str(512 * 2**20)
    assert found["rosepo", "0", "margin_accuracy_after"]["n"] == "1000"
    assert found["sft", "0", "seconds_training"]["low"] == ""
    assert {one["kind"] for one in table} == {"real"}
    for one in table:
        if one["low"]:
            assert float(one["low"]) <= float(one["value"]) <= float(one["high"])


def test_full_disk_keeps_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = read_back(tmp_path, record("sft", ranks(30)))
    write_report(tmp_path, report_of(records))
    before = (tmp_path / "report.md").read_text(encoding="utf-8")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    changed = read_back(tmp_path / "other", record("sft", ranks(40)))
    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(UserError, match="disk full"):
        write_report(tmp_path, report_of(changed))
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == before


def test_data_sets_follow_the_records(tmp_path: Path) -> None:
    names: Sequence[str] = ("movielens", "steam")
    text = render(read_back(tmp_path, *(record("sft", ranks(30), dataset=name) for name in reversed(names))))
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## movielens", "## steam"]
