"""The long table: written and read back the same, shown as Markdown, plotted from the file alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rosepo_bench.base.errors import UserError
from rosepo_bench.bench import table
from rosepo_bench.bench.plot import plot
from rosepo_bench.bench.table import Row

ROW = Row(
    case="head frozen 128x8x64 float32 cpu",
    goal="G8",
    work="head",
    setting="d=8 V=64 float32",
    mode="frozen",
    provider="rosepo_bench",
    metric="time",
    baseline="",
    x_name="rows",
    x=128,
    p20=1.25,
    p50=1.5,
    p80=2.0,
    bound=None,
    unit="ms",
    rounds=7,
    device="a processor, of some kind",
    threads=2,
    allocator="default",
    torch="2.13.0",
    peer_version="0.1.0",
    library="0123456789abcdef-01234567",
    verified="equal",
    function='ops."sequence_logprob"',
    note="",
)
ROWS = [
    ROW,
    replace(ROW, provider="naive", p20=2.5, p50=3.0, p80=4.0),
    replace(ROW, metric="ratio", baseline="naive", p20=0.49, p50=0.5, p80=0.51, unit="1"),
    replace(ROW, metric="peak_memory", p20=16.5, p50=16.5, p80=16.5, unit="MiB", rounds=1),
    replace(ROW, provider="trl", p20=None, p50=None, p80=None, verified="", note="not installed"),
]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "bench.csv"
    table.write(ROWS, path)
    assert table.read(path) == ROWS
    assert len(path.read_text().splitlines()) == 1 + len(ROWS)


@pytest.mark.parametrize("text", ["", "provider,mode\nnaive,frozen\n"])
def test_another_table_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.csv"
    path.write_text(text)
    with pytest.raises(UserError, match="not those of a benchmark table"):
        table.read(path)


def test_markdown_puts_the_ratio_beside_whom_it_is_over() -> None:
    text = table.markdown(ROWS)
    (title,) = [line for line in text.splitlines() if line.startswith("**")]
    assert title == "**head, frozen, d=8 V=64 float32; a processor, of some kind, 2 threads, malloc default**"
    cells = {
        line.split("|")[2].strip(): [cell.strip() for cell in line.split("|")[3:-1]] for line in text.splitlines()[2:]
    }
    assert cells["provider"] == ["time, ms", "rosepo_bench over it", "peak memory, MiB", "note"]
    assert cells["rosepo_bench"] == ["1.5 [1.25, 2]", "–", "16.5", ""]
    assert cells["naive"] == ["3 [2.5, 4]", "0.5 [0.49, 0.51]", "–", ""]
    assert cells["trl"] == ["–", "–", "–", "not installed"]


def test_plots_come_from_the_file_alone(tmp_path: Path) -> None:
    more = [replace(row, x=512, p50=None if row.p50 is None else 4 * row.p50) for row in ROWS]
    table.write([*ROWS, *more], tmp_path / "bench.csv")
    written = plot(tmp_path / "bench.csv", tmp_path / "plots")
    assert [path.name for path in written] == ["times.png", "memory.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_one_size_makes_no_plot(tmp_path: Path) -> None:
    table.write(ROWS, tmp_path / "bench.csv")
    assert plot(tmp_path / "bench.csv", tmp_path) == []
