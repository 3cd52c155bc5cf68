"""Two worlds that differ in held-out items alone: nothing that is trained may differ, and what is measured must."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from planted import get

from rosepo_bench.losses.compiled import RosePO
from rosepo_bench.pipeline.evaluating import of_items
from rosepo_bench.pipeline.probe import Probe
from rosepo_bench.pipeline.smoothing import Smoothed
from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.preference.smoothings.predicted import Predicted
from rosepo_bench.runs.cells import Cell
from rosepo_bench.runs.composing import composed

Contents = dict[str, Any]
CASES = [("leave_one_out", False), ("leave_one_out", True), ("temporal", False)]


def arrays(value: Any) -> list[np.ndarray]:
    return [np.asarray(getattr(value, field.name)) for field in fields(value)]


def files(cell: Cell, stage: Stage[Any]) -> list[bytes]:
    """The bytes of the models that a stage keeps."""
    get(cell, stage)
    found = [path.read_bytes() for path in sorted(cell.task.stages.folder(stage).glob("*.npz"))]
    assert found
    return found


def judged(cell: Cell) -> Smoothed:
    """The oracle's view of the cell's pairs, also where its method has no oracle."""
    method = composed(replace(cell.method, loss=RosePO(), smoothing=Predicted()), cell.task.config)
    return Smoothed(cell.shared.fits, cell.pairing, method.smoothing)  # type: ignore[attr-defined]


def shared(cell: Cell) -> Contents:
    """What all methods stand on: the tokenizer, SFT, SASRec, the oracle, and the lists."""
    task, language, protocol = cell.task, cell.language, cell.shared.protocols[0]
    judging = judged(cell).judging
    assert judging is not None
    sasrec = of_items(cell.shared.fits, "sasrec", judging.smoothing.oracle, protocol)
    return {
        "view": [*task.view.sequences, task.view.counts],
        "tokenizer": get(cell, language.encoder_stage).tokenizer.to_str(),
        "sft": get(cell, cell.sft).weights.read_bytes(),
        "sasrec": files(cell, judging.everybody),
        "oracle": [get(cell, judging.crossfit).fold, *files(cell, judging.crossfit)],
        "lists.validation": arrays(get(cell, task.examples_stage("validation"))),
        "lists.test": arrays(task.test),
        "scores.sft": get(cell, cell.sft_answered).answers["scores"],
        "scores.sasrec": get(cell, sasrec).answers["scores"],
        "probe": get(cell, Probe(judging).stage),
    }


def paired(cell: Cell) -> Contents:
    """What one method makes of them."""
    found: Contents = {}
    pairing, smoothed = cell.pairing, cell.smoothed
    judging = judged(cell).judging
    assert judging is not None
    for part in ("train", "validation"):
        found[f"prompts.{part}"] = arrays(pairing.prompts(part))
        if pairing.sampler.pool:
            mined = get(cell, pairing.mining.stage)[part]
            found[f"mined.{part}"] = [mined["scored"], mined["scores"]]
        found[f"rejected.{part}"] = arrays(get(cell, pairing.rejected)[part])
        found[f"reference.{part}"] = get(cell, cell.reference)[part]
        found[f"delta.{part}"] = get(cell, judging.stage).delta[part]
        found[f"unfolded.{part}"] = get(cell, judging.stage).unfolded[part]
    found["tau"] = {kind: asdict(fit) for kind, fit in get(cell, judging.stage).temperatures.items()}
    found["epsilon.train"] = smoothed.epsilon("train")
    assert cell.trained is not None
    (answered,) = cell.answered.values()
    found["weights"] = get(cell, cell.trained).weights.read_bytes()
    found["scores"] = get(cell, answered).answers["scores"]
    return found


def everything(folder: Path, world: planted.World, split: str, listed: bool) -> Contents:
    prefix = world.write(folder / "files")
    settings = (f"datasets.planted.split={split}", f"prompt.candidates={str(listed).lower()}")
    found: Contents = {}
    for method in ("dpo", "rosepo"):
        cell = planted.cell(folder / "out", prefix, *settings, method=method)
        found |= {f"{method}.{name}": value for name, value in paired(cell).items()} | shared(cell)
    return found


def same(one: Any, two: Any) -> bool:
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    return np.array_equal(one, two) if isinstance(one, np.ndarray) else bool(one == two)


@pytest.fixture(scope="module", params=CASES, ids=["-".join(map(str, case)) for case in CASES])
def differing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Which contents differ when the test items, or the validation items, are other ones."""
    (split, listed), folder, world = request.param, tmp_path_factory.mktemp("leak"), planted.world()
    plain = everything(folder / "plain", world, split, listed)
    found = {}
    for part in ("test", "validation"):
        other = world.changed(split, part)
        assert other.training(split) == world.training(split)
        assert sum(a != b for a, b in zip(world.rows, other.rows, strict=True)) >= 16
        contents = everything(folder / part, other, split, listed)
        assert contents.keys() == plain.keys()
        found[part] = {name for name in plain if not same(plain[name], contents[name])}
    found["all"] = set(plain)
    return found


def test_test_items_reach_the_test_lists_and_scores_alone(differing: dict[str, set[str]]) -> None:
    """The validation lists of leave_one_out may name an item of a user's future, and not *because* it is one."""
    assert differing["test"] == {"lists.test", "scores.sft", "scores.sasrec", "dpo.scores", "rosepo.scores"}


def test_validation_items_reach_what_declares_them_alone(differing: dict[str, set[str]]) -> None:
    """They are part of the test users' histories, and choose τ; no prompt, pair or weight of training is theirs."""
    halves = ("prompts", "rejected", "reference", "delta", "unfolded")
    must = {"lists.validation", "probe", "rosepo.mined.validation", "scores.sft", "scores.sasrec", "lists.test"}
    must |= {f"{method}.{half}.validation" for method in ("dpo", "rosepo") for half in halves}
    must |= {f"{method}.{name}" for method in ("dpo", "rosepo") for name in ("tau", "scores")}
    may = {"rosepo.epsilon.train", "rosepo.weights"}
    assert must <= differing["validation"], must - differing["validation"]
    assert differing["validation"] <= must | may, differing["validation"] - must - may


def test_weights_follow_validation_where_their_epsilon_does(differing: dict[str, set[str]]) -> None:
    """Through τ alone: an ε that stayed leaves the weights as they were, to the last bit."""
    moved = differing["validation"]
    assert ("rosepo.epsilon.train" in moved) == ("rosepo.weights" in moved)
