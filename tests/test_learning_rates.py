"""Learning rates that nobody gave: a function of the model's kind, and a number in the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from running import MICRO
from saved_model import save_model

from rosepo_bench.base.config import RunConfig
from rosepo_bench.base.configure import for_dataset, profile_names, read_profile, set_key, settings, validate
from rosepo_bench.runs.plan import Places, cells
from rosepo_bench.runs.record import _config

TINY, FULL, LORA = (3e-3, 5e-4), (2e-5, 5e-7), (1e-4, 1e-5)


def config(profile: str = str(MICRO), **given: Any) -> RunConfig:
    table = read_profile(profile)
    for key, value in given.items():
        set_key(table, key.replace("__", "."), value)
    return validate(table, RunConfig)


def rates(found: RunConfig) -> tuple[float, float]:
    return found.sft.lr, found.preference.lr


@pytest.mark.parametrize("profile", [str(MICRO), *profile_names()])
def test_the_default_is_a_function_of_the_models_kind(profile: str) -> None:
    assert rates(config(profile)) == TINY
    assert rates(config(profile, model__training="lora")) == TINY
    assert rates(config(profile, model__name="hf:some/model")) == FULL
    assert rates(config(profile, model__name="hf:some/model", model__training="lora")) == LORA


def test_a_rate_that_is_given_stays() -> None:
    assert rates(config(model__name="hf:some/model", sft__lr=0.5)) == (0.5, 5e-7)
    assert rates(config(preference__lr=0.25)) == (3e-3, 0.25)


def test_a_data_set_with_a_model_of_its_own_has_its_rates() -> None:
    own = {"model.name": "hf:some/model", "model.training": "lora"}
    assert rates(for_dataset(config(datasets__steam__overrides=own), "steam")) == LORA
    assert rates(for_dataset(config(datasets__steam__overrides=own, sft__lr=0.5), "steam")) == (0.5, 1e-5)
    back = {"model.name": "tiny"}
    assert rates(for_dataset(config(model__name="hf:a/b", datasets__steam__overrides=back), "steam")) == TINY
    assert (
        rates(for_dataset(config(model__name="hf:a/b", datasets__steam__overrides={"sft.batch": 8}), "steam")) == FULL
    )


def test_a_default_is_changed_for_no_other_configuration() -> None:
    config(model__name="hf:some/model")
    assert rates(config()) == TINY


def test_the_record_holds_the_number(tmp_path: Path) -> None:
    save_model("qwen3", tmp_path / "model")
    hub = config(model__name=f"hf:{tmp_path / 'model'}", model__training="lora", methods=["sft", "dpo"])
    sft, dpo = cells(hub, Places(tmp_path / "out", None, tmp_path, offline=True))
    assert _config(sft)["sft"]["lr"] == 1e-4
    assert _config(dpo)["preference"]["lr"] == 1e-5


def test_settings_tell_the_rates() -> None:
    told = dict(settings())
    assert "3e-3 for tiny, and for hf: 2e-5 in full, 1e-4 by LoRA (a number > 0)" in told["sft.lr"]
    assert "5e-4 for tiny, and for hf: 5e-7 in full, 1e-5 by LoRA (a number > 0)" in told["preference.lr"]
