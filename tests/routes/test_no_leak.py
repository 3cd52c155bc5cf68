"""Two worlds that differ in held-out items alone: nothing that is trained may differ, and what is measured must."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from planted import get

from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.runs.cells import Cell

Contents = dict[str, Any]
CASES = [("leave_one_out", False), ("leave_one_out", True), ("temporal", False)]


def arrays(value: Any) -> list[np.ndarray]:
    return [np.asarray(getattr(value, field.name)) for field in fields(value)]


def files(cell: Cell, stage: Stage[Any]) -> list[bytes]:
    """The bytes of the models that a stage keeps."""
    get(cell, stage)
    return [path.read_bytes() for path in sorted(cell.pipeline.stages.folder(stage).glob("*.safetensors"))]


def shared(cell: Cell) -> Contents:
    """What all methods stand on: the tokenizer, SFT, SASRec, the oracle, and the lists."""
    pipeline, language = cell.pipeline, cell.language
    return {
        "tokenizer": get(cell, language.encoder_stage).tokenizer.to_str(),
        "sft": get(cell, language.sft).weights.read_bytes(),
        "sasrec": files(cell, pipeline.sasrec),
        "oracle": [get(cell, cell.smoothing.oracle).fold, *files(cell, cell.smoothing.oracle)],
        "lists.validation": arrays(get(cell, pipeline.examples_stage("validation"))),
        "lists.test": arrays(pipeline.test),
        "scores.sft": get(cell, language.scores("sft", language.sft)).scores,
        "scores.sasrec": pipeline.sasrec_scores(pipeline.test),
        "probe": get(cell, cell.probe.stage),
    }


def paired(cell: Cell) -> Contents:
    """What one method makes of them."""
    found: Contents = {}
    pairing, smoothing = cell.pairing, cell.smoothing
    mined = cell.method.sampler in ("self_hard", "mixed")  # type: ignore[union-attr]
    for part in ("train", "validation"):
        found[f"prompts.{part}"] = arrays(pairing.prompts(part))
        if mined:
            found[f"mined.{part}"] = arrays(get(cell, pairing.mining)[part])
        found[f"rejected.{part}"] = list(get(cell, pairing.rejected)[part])
        found[f"reference.{part}"] = get(cell, pairing.reference)[part]
        found[f"delta.{part}"] = get(cell, smoothing.judged).delta[part]
        found[f"unfolded.{part}"] = get(cell, smoothing.judged).unfolded[part]
    found["tau"] = {kind: asdict(fit) for kind, fit in get(cell, smoothing.judged).temperatures.items()}
    found["epsilon.train"] = smoothing.epsilon("train", cell.method.epsilon)  # type: ignore[union-attr]
    assert cell.trained is not None
    assert cell.scored is not None
    found["weights"] = get(cell, cell.trained).weights.read_bytes()
    found["scores"] = get(cell, cell.scored).scores
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
