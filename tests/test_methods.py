"""Components of a package that nobody here has heard of: the examples of docs/extending.md, installed, run, listed,
changed from the command line, and in the tables."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from running import MICRO, results

from rosepo_bench import cli
from rosepo_bench.base import plugins
from rosepo_bench.base.config import RunConfig
from rosepo_bench.base.configure import read_profile, set_key, validate
from rosepo_bench.runs.methods import methods
from rosepo_bench.runs.plan import Places, cells

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"


def example(title: str) -> str:
    """The Python file that the guide shows under a heading."""
    section = GUIDE.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found
    return found[1]


class Package:
    """A distribution on the path: one module, and its entry points."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.metadata = folder, folder / "strangers-1.0.dist-info"
        self.metadata.mkdir()
        (self.metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 1.0\n")

    def install(self, code: str, **entries: dict[str, str]) -> None:
        (self.folder / "strangers.py").write_text(code)
        groups = [
            f"[rosepo_bench.{kind}]\n" + "".join(f"{name} = strangers:{place}\n" for name, place in names.items())
            for kind, names in entries.items()
        ]
        (self.metadata / "entry_points.txt").write_text("\n".join(groups))
        forget()

    def run(self, *arguments: str, status: int = 0) -> Path:
        out = self.folder / "out"
        line = ["run", "--profile", str(MICRO), "--out", str(out), "--offline", "--cache-dir", str(self.folder)]
        assert cli.main([*line, *arguments]) == status
        return out


def forget() -> None:
    """What this process knows of the package."""
    sys.modules.pop("strangers", None)
    plugins.registry.cache_clear()
    methods.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Package(tmp_path)
    forget()


def listed(what: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert cli.main(["ls", what]) == 0
    return capsys.readouterr().out


def test_a_loss_and_a_sampler_of_ones_own(package: Package, capsys: pytest.CaptureFixture[str]) -> None:
    code = example("A method with a loss and a sampler")
    assert len(code.splitlines()) < 30
    package.install(code, methods={"hinge-rare": "METHOD"})
    assert "loss hinge, sampler rare, smoothing zero, K = 3" in " ".join(listed("methods", capsys).split())
    assert "method hinge-rare, strangers:METHOD, strangers 1.0" in " ".join(listed("losses", capsys).split())
    assert "rare" in listed("samplers", capsys)
    assert "samplers.rare.power" in listed("settings", capsys)
    out = package.run(
        "--methods", "sft,hinge-rare,dpo", "--set", "method.hinge-rare.sampler.power=50",
        "--set", "method.dpo.loss=hinge", "--set", "method.dpo.rejected=2", "--set", "preference.pairs=60",
    )  # fmt: skip
    found = {name: record for name, (record, _) in results(out).items()}
    own, ours = (found[f"steam/{name}/0"] for name in ("hinge-rare", "dpo"))
    assert own["diagnostics"]["preference"]["kernel"] == "plain torch"
    assert own["settings"]["sampler.power"] == 50
    assert (own["settings"]["rejected"], ours["settings"]["rejected"]) == (3, 2)
    assert (ours["settings"]["loss"], ours["settings"]["sampler"]) == ("hinge", "uniform")
    assert own["training"]["curves"]["loss"]
    text = (out / "report.md").read_text()
    assert re.search(r"\| hinge-rare +\| rare +\| hinge +\| +1 \| +3 \|", text)


def test_what_its_sampler_says_is_what_is_drawn(package: Package) -> None:
    """With a large power the least popular eligible items, and nothing else, are rejected."""
    package.install(example("A method with a loss and a sampler"), methods={"hinge-rare": "METHOD"})
    table = {**read_profile(str(MICRO)), "methods": ["hinge-rare"]}
    set_key(table, "method.hinge-rare.sampler.power", 200)
    (cell,) = cells(validate(table, RunConfig), Places(package.folder / "out", None, package.folder, offline=True))
    drawn = cell.task.stages.get(cell.pairing.rejected)["train"]
    counts, queries = cell.task.view.counts, cell.task.queries(cell.pairing.examples["train"])
    assert drawn.items.shape[1] == 3
    for items, history, chosen in zip(drawn.items, queries.histories, cell.pairing.titles("train")[:, 0], strict=True):
        rest = np.setdiff1d(np.arange(len(counts)), [*history, chosen])
        assert sorted(counts[items]) == sorted(counts[rest])[:3]


def test_an_oracle_is_a_baseline_and_a_judge(package: Package, capsys: pytest.CaptureFixture[str]) -> None:
    package.install(example("An oracle"), methods={"markov": "METHOD"})
    assert "markov" in listed("oracles", capsys)
    out = package.run(
        "--methods", "markov,rosepo", "--set", "method.rosepo.smoothing.oracle=markov",
        "--set", "method.rosepo.smoothing.oracle.weight=2", "--set", "preference.pairs=60",
    )  # fmt: skip
    found = {name: record for name, (record, _) in results(out).items()}
    assert found["steam/rosepo/0"]["diagnostics"]["oracle"]["name"] == "markov"
    assert found["steam/rosepo/0"]["settings"]["smoothing.oracle.weight"] == 2
    assert found["steam/markov/0"]["family"] == "recommender"


def test_a_metric_is_measured_and_added_to_earlier_records(
    package: Package, capsys: pytest.CaptureFixture[str]
) -> None:
    out = package.run("--methods", "popularity")
    before, arrays = results(out)["steam/popularity/0"]
    assert "mrr" not in before["evaluations"]["candidates-sum"]["metrics"]
    package.install(example("A metric"), metrics={"mrr": "MRR"})
    assert "mean of 1/rank of the target" in listed("metrics", capsys)
    assert cli.main(["report", "--out", str(out), "--rescore"]) == 0
    assert "MRR" in capsys.readouterr().out
    out = package.run("--methods", "popularity", "--force")
    after, _ = results(out)["steam/popularity/0"]
    value = after["evaluations"]["candidates-sum"]["metrics"]["mrr"]["value"]
    assert value == pytest.approx((1 / arrays["rank"]).mean())


BROKEN = "import there_is_no_such_module"


def test_a_broken_package_is_named_and_stops_nothing_else(package: Package, capsys: pytest.CaptureFixture[str]) -> None:
    package.install(BROKEN, methods={"hinge-rare": "METHOD"}, samplers={"rare": "Rare"})
    why = "(strangers:METHOD, strangers 1.0) cannot be imported: ModuleNotFoundError"
    assert why in " ".join(listed("methods", capsys).split())
    out = package.run("--methods", "popularity,hinge-rare", status=3)
    assert set(results(out)) == {"steam/popularity/0"}
    assert "cannot be imported: ModuleNotFoundError" in (out / "report.md").read_text()
    capsys.readouterr()
    package.run("--methods", "dpo", "--set", "method.dpo.sampler=rare", status=2)
    assert "sampler 'rare': (strangers:Rare, strangers 1.0) cannot be imported" in capsys.readouterr().err


def test_taken_and_wrong_names_are_refused(package: Package, capsys: pytest.CaptureFixture[str]) -> None:
    code = example("A method with a loss and a sampler")
    package.install(code.replace('name="hinge-rare"', 'name="sft"'), methods={"sft": "METHOD"})
    assert "the name 'sft' is taken by rosepo_bench; rename it" in " ".join(listed("methods", capsys).split())
    package.install(code, methods={"other": "METHOD", "numbers": "np"}, samplers={"rare": "Hinge"})
    said = " ".join(listed("methods", capsys).split())
    assert "calls itself 'hinge-rare'; the two names must be the same" in said
    assert "is not a method with a name, but a module" in said
    assert "is not a sampler with a name, but the class Hinge" in " ".join(listed("samplers", capsys).split())


WRONG = {
    "shape": ("mean(dim=1, keepdim=True)", "mean()", r"loss 'hinge' returned \[\]: want one value per pair"),
    "nan": ("torch.relu(", "torch.log(-1 + 0 *", "loss 'hinge' is not finite: nan"),
    "detached": ("torch.relu(self.margin - gaps)", "torch.relu(self.margin - gaps.detach())", "has no gradient"),
    "chosen": ("view, prompts, chosen):\n", "view, prompts, chosen):\n        raise KeyError('x')\n", "KeyError"),
}


@pytest.mark.parametrize("fault", ["shape", "nan", "detached", "chosen"])
def test_what_a_third_partys_code_gets_wrong_is_said(
    fault: str, package: Package, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, said = WRONG[fault]
    code = example("A method with a loss and a sampler")
    assert old in code
    package.install(code.replace(old, new), methods={"hinge-rare": "METHOD"})
    capsys.readouterr()
    package.run("--methods", "hinge-rare", "--set", "preference.pairs=60", status=3)
    out, _ = capsys.readouterr()
    assert re.search(str(said), out)
