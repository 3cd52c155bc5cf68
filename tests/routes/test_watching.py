"""Training that is watched keeps the weights that rank the validation users' candidates best, by the metric, the users
and the rule that the configuration says: SFT, preference training and SASRec alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from planted import get

from rosepo_bench.data import candidates


def by_hand(scores: np.ndarray, position: np.ndarray, metric: str) -> float:
    target = scores[np.arange(len(scores)), position]
    rank = 1 + (scores > target[:, None]).sum(axis=1)
    return float(np.mean(rank == 1) if metric == "hr@1" else np.mean(np.where(rank <= 10, 1 / np.log2(1 + rank), 0)))


@pytest.mark.parametrize("rule", ["sum", "mean"])
@pytest.mark.parametrize(("method", "section"), [("sft", "sft"), ("dpo", "preference")])
def test_a_language_model(method: str, section: str, rule: str, tmp_path: Path) -> None:
    world = planted.world()
    settings = (f"{section}.evaluations=4", f"{section}.lr=3e-2", f"protocols=['candidates-{rule}']")
    cell = planted.cell(tmp_path / "out", world.write(tmp_path), *settings, method=method)
    assert cell.trained is not None
    report = get(cell, cell.trained).report
    values = [value for _, value in report["validation"]]
    assert len(values) == 5
    examples = cell.task.examples("validation")
    assert set(examples.step) == set(cell.task.split.validation[examples.user])
    scores = planted.sums(
        planted.network(cell, cell.trained), cell, world, planted.prompts_of(cell, world, examples), examples.candidates
    )
    if rule == "mean":
        scores = scores / np.array(
            [[len(planted.response(cell, world, i)) for i in row] for row in examples.candidates]
        )
    assert by_hand(scores, examples.position, "ndcg@10") == pytest.approx(max(values), abs=1e-6)
    assert dict(report["validation"])[report["best_step"]] == max(values) > min(values)


def test_an_oracle_of_the_baseline_and_of_each_fold(tmp_path: Path) -> None:
    """A fold's oracle is watched on the validation of the users that it was fitted to, and of no others."""
    seen: list[tuple[str, set[int]]] = []
    from rosepo_bench.recommenders.sasrec import SASRec

    fit = SASRec.fit

    def spy(self: SASRec, view: Any, work: Any, holdout: Any) -> Any:
        assert set(holdout.queries.user) <= set(view.users.tolist())
        assert not hasattr(holdout.queries, "target")
        seen.append((work.label, set(holdout.queries.user.tolist())))
        return fit(self, view, work, holdout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SASRec, "fit", spy)
        prefix = planted.world().write(tmp_path)
        cell = planted.cell(tmp_path / "out", prefix, "oracles.sasrec.evaluations=2", method="rosepo")
        assert cell.smoothed.judging is not None
        get(cell, cell.smoothed.judging.stage)
    users = [who for label, who in seen if "/" in label]
    (everybody,) = [who for label, who in seen if "/" not in label]
    assert len(users) == 2
    assert users[0] & users[1] == set()
    assert users[0] | users[1] == everybody == set(cell.task.examples("validation").user.tolist())


def test_metric_and_users_are_those_of_the_configuration(tmp_path: Path) -> None:
    world, values = planted.world(), {}
    for settings in (("validation.metric=hr@1",), ("validation.metric=ndcg@5",), ("validation.users=7",)):
        out = tmp_path / "out"
        cell = planted.cell(out, world.write(tmp_path), "sft.evaluations=2", *settings, method="sft")
        values[settings] = get(cell, cell.sft).report["validation"]
    assert len({str(one) for one in values.values()}) == 3
    few = cell.task.validation()
    assert len(few) == 7
    assert len(cell.task.examples("validation")) > 7
    assert candidates.content_hash(few) != candidates.content_hash(cell.task.examples("validation"))
