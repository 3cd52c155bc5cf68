"""Methods come through entry points: ours, and those of a package nobody here has heard of."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from running import MICRO, results

from rosepo_bench import cli
from rosepo_bench.base.config import PreferenceConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.runs.cells import preference_settings
from rosepo_bench.runs.methods import Preference, registry, select

PACKAGE = """
import numpy as np
from rosepo_bench.runs.methods import Preference, Recommender

RECENT = Recommender(
    name="alphabetical",
    summary="titles in the order of the alphabet",
    scores=lambda pipeline, examples: -np.argsort(np.argsort(np.array(pipeline.data.titles)))[examples.candidates],
)
GENTLE = Preference(name="gentle", summary="semantic, one epsilon", sampler="semantic", epsilon="constant",
                    settings={"epsilon": 0.3, "beta": 0.05})
"""
ENTRIES = "[rosepo_bench.methods]\nalphabetical = strangers:RECENT\ngentle = strangers:GENTLE\n"


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another package, installed: a module and its metadata on the path."""
    metadata = tmp_path / "strangers-1.0.dist-info"
    metadata.mkdir()
    (tmp_path / "strangers.py").write_text(PACKAGE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("strangers", None)


def test_a_third_partys_methods_run_like_ours(strangers: Path) -> None:
    out = strangers / "out"
    line = [
        "run",
        "--methods",
        "alphabetical,sft,gentle",
        "--profile",
        str(MICRO),
        "--out",
        str(out),
        "--offline",
    ]
    assert cli.main([*line, "--cache-dir", str(strangers)]) == 0
    found = results(out)
    assert set(found) == {"steam/alphabetical/0", "steam/sft/0", "steam/gentle/0"}
    preference = found["steam/gentle/0"][0]["preference"]
    assert preference["epsilon"]["mean"] == pytest.approx(0.3)
    assert (preference["beta"], preference["sampler"]) == (0.05, "semantic")
    text = (out / "report.md").read_text()
    assert "alphabetical" in text
    assert "gentle" in text


def test_two_packages_with_one_name_are_refused(strangers: Path) -> None:
    entries = strangers / "strangers-1.0.dist-info" / "entry_points.txt"
    entries.write_text("[rosepo_bench.methods]\nsft = strangers:GENTLE\n")
    with pytest.raises(UserError, match=r"'sft' .* calls itself 'gentle'"):
        registry()
    (strangers / "strangers.py").write_text(PACKAGE.replace('"gentle"', '"sft"'))
    sys.modules.pop("strangers", None)
    with pytest.raises(UserError, match="two installed packages declare the method 'sft'"):
        registry()


def test_what_is_no_method_is_refused(strangers: Path) -> None:
    entries = strangers / "strangers-1.0.dist-info" / "entry_points.txt"
    entries.write_text("[rosepo_bench.methods]\nnumbers = strangers:np\n")
    with pytest.raises(UserError, match="is a module, not a method"):
        registry()


def test_a_package_that_cannot_be_imported_is_named(strangers: Path) -> None:
    (strangers / "strangers.py").write_text("import there_is_no_such_module")
    sys.modules.pop("strangers", None)
    with pytest.raises(
        UserError, match=r"'alphabetical' \(strangers:RECENT, strangers 1.0\) cannot be imported: ModuleNot"
    ):
        registry()


def test_settings_of_a_method_stand_above_the_common_ones() -> None:
    method = Preference(name="m", summary="", sampler="uniform", epsilon="oracle", settings={"beta": 0.2, "lr": 1e-3})
    settings = preference_settings(method, PreferenceConfig(beta=3.0, batch=7), {"beta": 0.5})
    assert (settings.beta, settings.lr, settings.batch) == (0.5, 1e-3, 7)


def test_select_keeps_the_order() -> None:
    assert [method.name for method in select(["sft", "popularity"])] == ["sft", "popularity"]
