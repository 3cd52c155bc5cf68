"""An error of a sampler names the data set as the profile does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny_world as tiny

from rosepo_bench.base.errors import UserError, of_dataset
from rosepo_bench.preference.samplers.base import Sampler, checked


class Stingy(Sampler):
    name = "stingy"

    def log_weights(self, *_: Any) -> np.ndarray:
        return np.full(9, -np.inf)


class Broken(Sampler):
    name = "broken"

    def log_weights(self, *_: Any) -> np.ndarray:
        return np.full(9, np.nan)


@pytest.mark.parametrize(
    ("sampler", "said"),
    [(Stingy(), "user 0: no eligible item is left for sampler stingy"), (Broken(), "sampler broken: ")],
)
def test_a_samplers_error_names_the_data_set(sampler: Sampler, said: str) -> None:
    prompts, chosen = tiny.asked([(0, 2), (2, 3)])
    with pytest.raises(UserError, match=f"^data set films: {said}"):
        checked(sampler, replace(tiny.view(), label="films"), prompts, chosen, 2, 0)
    with pytest.raises(UserError, match=f"^{said}"):  # on its own, outside of any profile
        checked(sampler, replace(tiny.view(), label=""), prompts, chosen, 2, 0)


def test_an_error_stays_what_it_is() -> None:
    class OwnError(UserError):
        pass

    with pytest.raises(OwnError, match=r"^data set films: no$"), of_dataset("films"):
        raise OwnError("no")
    with pytest.raises(KeyError), of_dataset("films"):
        raise KeyError("another's")
