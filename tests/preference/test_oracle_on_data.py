"""What the oracle must be worth on real interactions and on the replicas, with every sampler."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from jaxtyping import Float64

from rosepo_bench.base.config import DatasetConfig, PreferenceConfig, SASRecConfig
from rosepo_bench.base.work import Work
from rosepo_bench.data import candidates, catalog, sequences
from rosepo_bench.data.types import Examples
from rosepo_bench.preference import smoothing
from rosepo_bench.preference.oracles import cross_fit as oracle
from rosepo_bench.preference.pairs import choose_steps
from rosepo_bench.preference.samplers.sampler import Sampler
from rosepo_bench.preference.samplers.self_hard import Pool
from rosepo_bench.recommenders import sasrec

CONFIGS = {
    "steam-australian": DatasetConfig(source="steam-australian", core=5),
    "steam": DatasetConfig(source="steam", synthetic="always"),
}


@dataclass(frozen=True)
class Judged:
    """One sampler's pairs: ε of training and validation pairs by the cross-fitted and the unfolded oracle."""

    fit: smoothing.Temperature
    folded: dict[str, Float64[np.ndarray, " _"]]
    unfolded: dict[str, Float64[np.ndarray, " _"]]


@pytest.fixture(scope="module", params=CONFIGS)
def judged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Judged]:
    config = CONFIGS[request.param]
    given = None if config.synthetic == "always" else request.getfixturevalue("shared_data")
    resolved = catalog.resolve(config.source, config, given, tmp_path_factory.mktemp("cache"), offline=True)
    dataset = catalog.load(resolved, config)
    split = sequences.split(dataset, "leave_one_out")
    user, step = choose_steps(split, pairs=2000, steps_per_user=5, seed=0)
    steps: list[list[int]] = [[] for _ in range(dataset.users)]
    for one, place in zip(user.tolist(), step.tolist(), strict=True):
        steps[one].append(place)
    parts = {
        "train": candidates.draw(dataset, split, "train", seed=0, steps=steps),
        "validation": candidates.draw(dataset, split, "validation", seed=0),
    }
    training = [sequence[:end] for sequence, end in zip(dataset.sequences, split.train_end, strict=True)]
    folded = oracle.cross_fit(training, dataset.items, SASRecConfig(), 2, Work(seed=0))
    whole, other = (sasrec.train(training, dataset.items, SASRecConfig(), Work(seed)) for seed in (0, 1))
    sampler = Sampler.of(dataset, split, PreferenceConfig(), history=19)

    def histories(examples: Examples) -> list[np.ndarray]:
        return [dataset.sequences[u][:s] for u, s in zip(examples.user, examples.step, strict=True)]

    def judge(name: str) -> Judged:
        deltas: dict[str, dict[str, Float64[np.ndarray, " _"]]] = {"folded": {}, "unfolded": {}}
        law, popular = {}, {}
        for part, examples in parts.items():
            past = histories(examples)
            # A recommender with another seed stands where the language model does in a run.
            pool = Pool(examples.candidates, sasrec.scores(other, past, examples.candidates))
            drawn = sampler.draw(name, examples, seed=1, pool=pool)
            both = np.stack([drawn.items, examples.target], axis=1)
            for kind, scores in (
                ("folded", folded.scores(examples.user, past, both)),
                ("unfolded", sasrec.scores(whole, past, both)),
            ):
                deltas[kind][part] = scores[:, 0] - scores[:, 1]
            taken = np.log1p(sampler.counts)[both]
            law[part], popular[part] = drawn.law, taken[:, 0] - taken[:, 1]
        found, fits = {}, {}
        for kind, delta in deltas.items():
            fits[kind] = smoothing.fit_temperature(
                delta["validation"], law["validation"], popular["validation"], seed=2
            )
            found[kind] = {p: smoothing.epsilon(delta[p], law[p], fits[kind].tau, 0.5) for p in parts}
        return Judged(fits["folded"], found["folded"], found["unfolded"])

    return {name: judge(name) for name in ("uniform", "self_hard", "semantic", "popularity", "mixed")}


def test_it_tells_what_came_next_from_chance(judged: dict[str, Judged]) -> None:
    fit = judged["uniform"].fit
    assert fit.low > 0.5
    assert fit.log_loss < fit.constant_log_loss


def test_epsilon_differs_between_pairs(judged: dict[str, Judged]) -> None:
    for name, found in judged.items():
        for part, values in found.folded.items():
            assert smoothing.summary(values)["sd"] > 0.02, f"{name}, {part} pairs"


def test_cross_fitting_closes_the_gap(judged: dict[str, Judged]) -> None:
    """An oracle that saw the pairs is surer of them than of validation pairs; one that did not, is not."""
    found = judged["uniform"]
    gaps = [float(e["validation"].mean() - e["train"].mean()) for e in (found.folded, found.unfolded)]
    assert gaps[1] > 0.02
    assert abs(gaps[0]) <= gaps[1] / 2
