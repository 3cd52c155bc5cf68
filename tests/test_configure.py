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
    found = dict(settings())
    assert len(found) > 60
    assert not [name for name, text in found.items() if not text or text.startswith("None")]
    assert "default 0.05" in found["preference.semantic_temperature"]
    for section in ("sft", "preference", "sasrec"):  # what every training has
        assert {f"{section}.{name}" for name in TrainingConfig.model_fields} <= found.keys()
    assert "default (0.9, 0.999)" in found["sasrec.betas"]
    assert "default False" in found["preference.dropout"]


@pytest.mark.parametrize("section", ["sft", "preference", "sasrec"])
def test_betas_are_written_as_a_list(section: str) -> None:
    """In TOML; and once more as the tuple that a configuration holds, where a data set has overrides."""
    table = read_profile("demo")
    set_key(table, *parse_setting(f"{section}.betas=[0.5, 0.75]"))
    config = for_dataset(validate(table, RunConfig), "steam")
    assert getattr(config, section).betas == (0.5, 0.75)


def test_a_profile_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    for number, content in enumerate((b"seeds = ", 'about = "\xe9"'.encode("latin-1"))):
        path = tmp_path / f"{number}.toml"
        path.write_bytes(content)
        with pytest.raises(UserError, match="not readable as TOML in UTF-8"):
            read_profile(str(path))
