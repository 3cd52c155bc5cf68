"""The texts for readers: their links, commands, settings and numbers are those of the program and of its results."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import pytest

from rosepo_bench import cli
from rosepo_bench.bench import table
from rosepo_bench.commands.selection import configuration
from rosepo_bench.runs.composing import check_sections, composed, select
from rosepo_bench.runs.methods import methods

ROOT = Path(__file__).resolve().parents[1]
TEXTS = sorted(
    ["README.md", "CONTRIBUTING.md", "results/README.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
)
OTHERS_METHODS = "docs/extending.md"  # its methods are not installed here: tests/test_methods.py runs them
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROGRAM = "python -m rosepo_bench "


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def prose(name: str) -> str:
    """The text without its fenced blocks."""
    return FENCED.sub("", text(name))


def commands(name: str) -> list[str]:
    """The arguments of every call of the program: lines of fenced blocks, and code within sentences."""
    blocks = [block.replace("\\\n", " ") for language, block in FENCED.findall(text(name)) if not language]
    lines = [line for block in blocks for line in block.splitlines()]
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(name))]
    called = [one.removeprefix(PROGRAM) for one in [*lines, *inline] if one.startswith(PROGRAM)]
    settings = [f"plan --all {one.replace('datasets.NAME', 'datasets.steam')}" for one in inline if "--set " in one[:6]]
    return called + settings


def anchors(name: str) -> set[str]:
    """The headings as links name them."""
    headings = re.findall(r"^#+ (.+)$", prose(name), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", prose(name)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert target.exists(), link
        assert not anchor or anchor in anchors(str(target.relative_to(ROOT))), link


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_is_understood(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for language, block in FENCED.findall(text(name)):
        if language == "toml" and "[datasets.books]" in block:
            (tmp_path / "books.toml").write_text(block)
    monkeypatch.chdir(tmp_path)
    for command in commands(name):
        given = cli.parser().parse_args(shlex.split(command, comments=True))
        if hasattr(given, "set"):
            config = configuration(given)
            if name != OTHERS_METHODS:
                check_sections(config)
                for method in select(config.methods):
                    composed(methods()[method], config)


def test_commands_are_found() -> None:
    assert len(commands("README.md")) == 8  # three to start, three of your own, two within sentences


@pytest.mark.parametrize("name", TEXTS)
def test_every_make_target_is_there(name: str) -> None:
    targets = re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE)
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text(name), re.MULTILINE):
        assert target in targets, target


@pytest.mark.parametrize("name", TEXTS)
def test_examples_do_not_overwrite_each_other(name: str) -> None:
    """The tables of a folder are made from all its records."""
    runs = [cli.parser().parse_args(shlex.split(one)) for one in commands(name) if one.startswith("run ")]
    folders = [str(given.out) for given in runs]
    assert len(folders) == len(set(folders)), folders
    assert "results/runs" not in folders, "that is the demo's"


@pytest.mark.parametrize("name", TEXTS)
def test_lines_fit_a_hundred_columns(name: str) -> None:
    """Outside code that other tests run, and the table of goals, which `bench` writes."""
    kept = text(name).partition("<!-- goals -->")[0]
    kept = re.sub(r"^```python\n.*?^```", "", kept, flags=re.DOTALL | re.MULTILINE)
    assert [line for line in kept.splitlines() if len(line) > 100] == []


def test_the_readme_is_short() -> None:
    assert len(text("README.md").split()) <= 1200


def test_the_readme_shows_the_demos_numbers() -> None:
    """Of the committed demo, in its order; and the smallest difference that would show."""
    with (ROOT / "results/demo/results.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["dataset"], row["seed"]) == ("movielens", "all")]
    found = {
        (row["method"], row["metric"]): [float(row[end] or "nan") for end in ("value", "low", "high")] for row in rows
    }
    expected = []
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = [
            f"{v:.3f} [{low:.3f}, {high:.3f}]" for v, low, high in (found[method, "hr@1"], found[method, "ndcg@10"])
        ]
        difference = found.get((method, "hr@1_minus_sft"))
        cells.append("–" if difference is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*difference))
        expected.append([method, *cells])
    lines = re.findall(r"^\| (\S+) +\| (.+?) +\|$", text("README.md"), re.MULTILINE)
    shown = [[method, *(cell.strip() for cell in rest.split("|"))] for method, rest in lines if method != "method"]
    assert shown == expected
    section = text("results/demo/report.md").partition("\n## movielens\n")[2].partition("\n## ")[0]
    (smallest,) = re.findall(r"from sft smaller than about (\S+) is", " ".join(section.split()))
    assert f"about {smallest} would" in " ".join(text("README.md").split())


PEERS = {
    "hand-written torch": "naive",
    "TRL 1.16, as shipped": "trl",
    "TRL 1.16, small tile": "trl small tile",
    "Liger 0.8.5, selective": "liger selective",
    "torch linear_cross_entropy": "torch linear_cross_entropy",
    "its two matrix products": "matrix products",
}


def test_the_engine_page_shows_the_committed_times_of_the_head() -> None:
    rows = table.read(ROOT / "results/engine/bench.csv")
    times = {
        (row.case, row.baseline): f"{row.p50:.2f} [{row.p20:.2f}, {row.p80:.2f}]"
        for row in rows
        if row.metric == "ratio"
    }
    cases = [f"head frozen {size}x256x32000 float32 cpu" for size in (128, 512)]
    for shown, peer in PEERS.items():
        cells = " | ".join(times[case, peer] for case in cases)
        assert re.search(rf"^\| {re.escape(shown)} +\| {re.escape(cells)} \|$", text("docs/engine.md"), re.MULTILINE), (
            shown
        )
