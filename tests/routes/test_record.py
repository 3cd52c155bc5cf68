"""A record says what was run: settings, data, candidates, stages; and its rates have the right denominators."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_hand import cell, run, sets, stage_folder

from rosepo_bench.base.seeds import digest
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.training import loop
from rosepo_bench.engine.training import preference as training
from rosepo_bench.pipeline import language
from rosepo_bench.runs import record as recording

SETTINGS = (
    *("preference.beta=0.7", "method.rosepo.beta=0.3", "method.rosepo.epsilon_max=0.4", "oracle.folds=3"),
    *("scoring.score=mean", "datasets.steam.candidates=12", "datasets.steam.users=80", "sft.lr=2e-3"),
    *("datasets.steam.overrides.sasrec.epochs=1", "preference.epochs=3", "first_seed=4"),
)
FAMILIES = ("language_model", "preference", "preference")  # of SFT, DPO and RosePO
METHODS = ("popularity", "sasrec", "sft", "dpo", "rosepo")


def records(out: Path) -> dict[str, dict[str, Any]]:
    """The records of a folder as files, by method."""
    found = [json.loads(path.read_text()) for path in out.glob("records/*/*/*/record.json")]
    return {one["method"]: one for one in found}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("record")
    run(out, "--methods", ",".join(METHODS), *sets(*SETTINGS))
    return out


@pytest.fixture(scope="module")
def found(out: Path) -> dict[str, dict[str, Any]]:
    return records(out)


def test_each_record_holds_the_settings_that_reached_it(found: dict[str, dict[str, Any]]) -> None:
    assert set(found) == set(METHODS)
    for name, one in found.items():
        config = one["config"]
        assert (one["seed"], one["dataset"], one["profile"], one["schema"]) == (4, "steam", "micro", 1)
        assert one["protocol"] == {"name": "candidates", "size": 12, "score": "mean"}
        assert (config["dataset"]["candidates"], config["dataset"]["users"]) == (12, 80)
        assert (config["sft"]["lr"], config["sasrec"]["epochs"], config["oracle"]["folds"]) == (2e-3, 1, 3)
        assert config["scoring"]["score"] == "mean"
        beta, cap = (0.3, 0.4) if name == "rosepo" else (0.7, 0.5)
        assert (config["preference"]["beta"], config["preference"]["epsilon_max"]) == (beta, cap)
        assert (one["preference"] is None) == (name not in ("dpo", "rosepo"))
        assert (one["oracle"] is None) == (name != "rosepo")
    for name, beta, loss, sampler in (("dpo", 0.7, "dpo", "uniform"), ("rosepo", 0.3, "cdpo", "mixed")):
        told = found[name]["preference"]
        assert (told["beta"], told["loss"], told["sampler"], told["pairs_seen"]) == (beta, loss, sampler, 360)
    families = {name: one["family"] for name, one in found.items()}
    assert (families.pop("sft"), families.pop("dpo"), families.pop("rosepo")) == FAMILIES
    assert set(families.values()) == {"recommender"}


def test_data_are_counted_and_hashed(found: dict[str, dict[str, Any]], out: Path) -> None:
    made = cell(out, "sft", *SETTINGS)
    data, test = made.pipeline.data, made.pipeline.test
    lists = np.load(next(out.glob("stages/steam.test-*/candidates.npz")))
    sha256 = digest(*(lists[name] for name in ("user", "step", "target", "candidates", "position")))
    tied = np.mean([times[-1] == times[-2] for times in data.times])
    for one in found.values():
        told = one["data"]
        assert (told["source"], told["kind"], told["split"]) == ("steam-replica", "synthetic", "leave_one_out")
        assert told["users"] == len(test) == 80
        assert told["candidates_sha256"] == sha256
        assert told["digest"] == data.digest
        assert told["tied_share"] == pytest.approx(tied)
        assert told["counts"]["usable"] == {
            "users": len(data.sequences),
            "items": len(set(np.concatenate(data.sequences).tolist())),
            "interactions": sum(map(len, data.sequences)),
        }


def test_stages_are_the_folders_that_were_used(found: dict[str, dict[str, Any]], out: Path) -> None:
    """Keys of stages on disk; the method's own training is behind its scores; the SFT model is one for all."""
    folders = {path.name for path in (out / "stages").iterdir()}
    wanted = {
        "popularity": {"steam.test"},
        "sasrec": {"steam.test", "steam.sasrec"},
        "sft": {"steam.test", "steam.scores.sft"},
        "dpo": {"steam.test", "steam.scores.dpo", "steam.scores.sft", "steam.logps.dpo"},
        "rosepo": {
            *("steam.test", "steam.scores.rosepo", "steam.scores.sft", "steam.logps.rosepo"),
            *("steam.judged.mixed", "steam.probe"),
        },
    }
    sft = stage_folder(out, "steam.sft").name
    for name, one in found.items():
        stages = dict(one["stages"])
        if name not in ("popularity", "sasrec"):
            assert f"steam.sft-{stages.pop('sft')[:16]}" == sft
        assert set(stages) == wanted[name]
        assert {f"{stage}-{key[:16]}" for stage, key in stages.items()} <= folders
        assert one["key"] == cell(out, name, *SETTINGS).key
    assert len({one["key"] for one in found.values()}) == len(METHODS)


class Clock:
    """Every look at it takes ``tick`` seconds."""

    def __init__(self, tick: float) -> None:
        self.now, self.tick = 0.0, tick

    def monotonic(self) -> float:
        self.now += self.tick
        return self.now


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A step of training takes 2 s, packing 5 s, scoring by a language model 10 s, by another method 4 s; and the
    tokens of every training pass are counted."""
    counted: dict[str, Any] = {"tokens": [], "steps": []}
    for module, tick in ((loop, 2.0), (training, 5.0), (language, 10.0), (recording, 4.0)):
        monkeypatch.setattr(module, "time", Clock(tick))
    logps, step = LanguageModel.logps, loop._step

    def counting(self: LanguageModel, batch: Any) -> Any:
        if self.network.training:
            counted["tokens"].append(batch.tokens.numel())
        return logps(self, batch)

    def stepping(*arguments: Any) -> Any:
        counted["steps"].append(arguments[-1])
        return step(*arguments)

    monkeypatch.setattr(LanguageModel, "logps", counting)
    monkeypatch.setattr(loop, "_step", stepping)
    return counted


def test_rates_are_per_second_of_their_own_work(tmp_path: Path, clocks: dict[str, Any]) -> None:
    """Pairs and training tokens over steps and packing; users over scoring alone; never over the whole cell."""
    told: dict[str, dict[str, Any]] = {}
    work: dict[str, tuple[int, int]] = {}
    for method in ("sft", "dpo", "popularity"):
        clocks["tokens"].clear()
        clocks["steps"].clear()
        made = cell(tmp_path, method, "preference.epochs=2")
        recording.run(made)
        told[method] = records(tmp_path)[method]["throughput"]
        work[method] = (sum(clocks["tokens"]), len(clocks["steps"]))
    tokens, steps = work["sft"]
    assert told["sft"]["training_tokens_per_s"] == pytest.approx(tokens / (2 * steps))
    assert told["sft"]["pairs_per_s"] is None
    assert told["sft"]["seconds"] == {"training": 2 * steps, "scoring": 10.0, "cell": 4.0}
    tokens, steps = work["dpo"]
    assert steps == pytest.approx(2 * 120 / 16, abs=4)
    assert told["dpo"]["training_tokens_per_s"] == pytest.approx(tokens / (2 * steps + 5))
    assert told["dpo"]["pairs_per_s"] == pytest.approx(2 * 120 / (2 * steps + 5))
    assert told["dpo"]["seconds"]["training"] == 2 * steps
    assert {told[name]["scoring_users_per_s"] for name in ("sft", "dpo")} == {120 / 10}
    assert told["popularity"]["scoring_users_per_s"] == 120 / 4
    assert told["popularity"]["training_tokens_per_s"] is None
    assert told["popularity"]["seconds"] == {"scoring": 4.0, "cell": 12.0}


def test_peak_memory_is_the_higher_of_training_and_scoring(tmp_path: Path) -> None:
    made = cell(tmp_path, "sft")
    recording.run(made)
    get = made.pipeline.stages.get
    peaks = [get(stage).report["peak_memory_bytes"] for stage in (made.trained, made.scored)]  # type: ignore[arg-type]
    assert records(tmp_path)["sft"]["throughput"]["peak_memory_bytes"] == max(peaks)
