"""The configuration as people write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rosepo_bench.base.config import RunConfig, TrainingConfig
from rosepo_bench.base.configure import (
    for_dataset,
    parse_setting,
    profile_names,
    read_profile,
    set_key,
    settings,
    validate,
)
from rosepo_bench.base.errors import UserError
from rosepo_bench.commands.ls import _settings
from rosepo_bench.runs.composing import composed
from rosepo_bench.runs.methods import methods


@pytest.mark.parametrize("name", profile_names())
def test_packaged_profiles_are_valid(name: str) -> None:
    config = validate(read_profile(name), RunConfig)
    assert config.profile == name
    assert config.about
    for dataset in config.datasets:
        for_dataset(config, dataset)


def test_overrides_change_their_own_keys_and_no_others() -> None:
    table = read_profile("demo")
    set_key(table, "datasets.steam.overrides.sft.epochs", 2.0)
    set_key(table, "sft.lr", 1e-4)
    config = for_dataset(validate(table, RunConfig), "steam")
    assert (config.sft.epochs, config.sft.batch, config.sft.lr) == (2.0, 32, 1e-4)


def test_every_setting_is_explained() -> None:
    found = dict(_settings())  # the configuration's, the methods' and their components'
    assert len(found) > 60
    assert {name for name, _ in settings()} < found.keys()
    assert not [name for name, text in found.items() if not text or text.startswith(("None", " ("))]
    assert "default 0.05" in found["samplers.semantic.temperature"]
    for section in ("sft", "preference", "oracles.sasrec"):  # what every training has
        assert {f"{section}.{name}" for name in TrainingConfig.model_fields} <= found.keys()
    assert "default [0.9, 0.999]" in found["oracles.sasrec.betas"]
    assert "default false" in found["preference.dropout"]


@pytest.mark.parametrize("section", ["sft", "preference"])
def test_betas_are_written_as_a_list(section: str) -> None:
    """In TOML; and once more as the tuple that a configuration holds, where a data set has overrides."""
    table = read_profile("demo")
    set_key(table, *parse_setting(f"{section}.betas=[0.5, 0.75]"))
    config = for_dataset(validate(table, RunConfig), "steam")
    assert getattr(config, section).betas == (0.5, 0.75)


def test_betas_of_a_component_too() -> None:
    """In every method that has it: as a baseline, and within a smoothing."""
    table = read_profile("demo")
    set_key(table, *parse_setting("oracles.sasrec.betas=[0.5, 0.75]"))
    config, known = for_dataset(validate(table, RunConfig), "steam"), methods()
    sasrec, rosepo = (composed(known[name], config) for name in ("sasrec", "rosepo"))
    assert sasrec.model.betas == rosepo.smoothing.oracle.betas == (0.5, 0.75)


@pytest.mark.parametrize(
    ("key", "now"),
    [
        ("preference.beta", "losses.NAME.beta, or method.NAME.loss.beta"),
        ("preference.epsilon", "smoothings.constant.value"),
        ("preference.epsilon_max", "smoothings.predicted.cap"),
        ("preference.self_hard_pool", "samplers.self_hard.items"),
        ("preference.semantic_temperature", "samplers.semantic.temperature"),
        ("preference.popularity_exponent", "samplers.popularity.exponent"),
        ("sasrec.lr", "oracles.sasrec"),
        ("oracle.folds", "smoothings.predicted"),
        ("scoring.score", "protocols"),
    ],
)
def test_a_key_that_has_moved_says_where(key: str, now: str) -> None:
    table = read_profile("demo")
    set_key(table, key, 1)
    with pytest.raises(UserError, match=f"; it is now {now}$"):
        validate(table, RunConfig)


def test_a_profile_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    for number, content in enumerate((b"seeds = ", 'about = "\xe9"'.encode("latin-1"))):
        path = tmp_path / f"{number}.toml"
        path.write_bytes(content)
        with pytest.raises(UserError, match="not readable as TOML in UTF-8"):
            read_profile(str(path))
