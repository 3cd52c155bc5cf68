"""What the oracle must be worth on real interactions and on the replicas, with every sampler."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from jaxtyping import Float64

from rosepo_bench.base.config import DatasetConfig
from rosepo_bench.base.plugins import registry
from rosepo_bench.base.work import Work
from rosepo_bench.data import candidates, catalog, sequences
from rosepo_bench.data.views import queries, train_view
from rosepo_bench.preference import calibration
from rosepo_bench.preference.oracles import cross_fit as oracle
from rosepo_bench.preference.pairs import choose_steps
from rosepo_bench.preference.samplers.base import Sampler, ScoredQueries, checked
from rosepo_bench.recommenders.sasrec import SASRec

CONFIGS = {
    "steam-australian": DatasetConfig(source="steam-australian", core=5),
    "steam": DatasetConfig(source="steam", synthetic="always"),
}


@dataclass(frozen=True)
class Judged:
    """One sampler's pairs: ε of training and validation pairs by the cross-fitted and the unfolded oracle."""

    fit: calibration.Temperature
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
    view, model = train_view(dataset, split), SASRec()
    folded = oracle.cross_fit(model, view, 2, Work(seed=0), None)
    whole, other = (model.fit(view, Work(seed), None) for seed in (0, 1))
    prompts = {part: queries(dataset, examples) for part, examples in parts.items()}

    def judge(name: str) -> Judged:
        deltas: dict[str, dict[str, Float64[np.ndarray, " _"]]] = {"folded": {}, "unfolded": {}}
        law, popular = {}, {}
        for part, examples in parts.items():
            asked = prompts[part]
            # A recommender with another seed stands where the language model does in a run.
            pool = model.scores(other, asked, asked.candidates).astype(np.float64)
            scored = ScoredQueries(**vars(asked), scored=asked.candidates, scores=pool)
            drawn = checked(registry(Sampler)[name](), view, scored, examples.target, 1, 1)
            both = np.stack([drawn.items[:, 0], examples.target], axis=1)
            for kind, scores in (
                ("folded", folded.scores(asked, both)),
                ("unfolded", model.scores(whole, asked, both)),
            ):
                deltas[kind][part] = scores[:, 0] - scores[:, 1]
            taken = np.log1p(view.counts)[both]
            law[part], popular[part] = drawn.law[:, 0], taken[:, 0] - taken[:, 1]
        found, fits = {}, {}
        for kind, delta in deltas.items():
            fits[kind] = calibration.fit_temperature(
                delta["validation"], law["validation"], popular["validation"], seed=2
            )
            found[kind] = {p: calibration.epsilon(delta[p], law[p], fits[kind].tau, 0.5) for p in parts}
        return Judged(fits["folded"], found["folded"], found["unfolded"])

    return {name: judge(name) for name in ("uniform", "self_hard", "semantic", "popularity", "mixed")}


def test_it_tells_what_came_next_from_chance(judged: dict[str, Judged]) -> None:
    fit = judged["uniform"].fit
    assert fit.low > 0.5
    assert fit.log_loss < fit.constant_log_loss


def test_epsilon_differs_between_pairs(judged: dict[str, Judged]) -> None:
    for name, found in judged.items():
        for part, values in found.folded.items():
            assert calibration.summary(values)["sd"] > 0.02, f"{name}, {part} pairs"


def test_cross_fitting_closes_the_gap(judged: dict[str, Judged]) -> None:
    """An oracle that saw the pairs is surer of them than of validation pairs; one that did not, is not."""
    found = judged["uniform"]
    gaps = [float(e["validation"].mean() - e["train"].mean()) for e in (found.folded, found.unfolded)]
    assert gaps[1] > 0.02
    assert abs(gaps[0]) <= gaps[1] / 2
