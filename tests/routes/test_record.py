"""A record says what was run: settings, data, candidates, stages; and its rates have the right denominators."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_hand import cell, run, sets, stage_folder

from rosepo_bench.base.record_schema import row_of
from rosepo_bench.base.seeds import digest
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.training import loop
from rosepo_bench.engine.training import preference as training
from rosepo_bench.pipeline import evaluating
from rosepo_bench.runs import record as recording
from rosepo_bench.runs.composing import settings_of

SETTINGS = (
    *("method.*.loss.beta=0.7", "method.rosepo.loss.beta=0.3", "method.rosepo.smoothing.cap=0.4"),
    *("smoothings.predicted.folds=3", "method.dpo.training.lr=1e-3"),
    *("protocols=['candidates-mean']", "datasets.steam.candidates=12", "datasets.steam.users=80", "sft.lr=2e-3"),
    *("datasets.steam.overrides.oracles.sasrec.epochs=1", "preference.epochs=3", "first_seed=4"),
)
FAMILIES = ("language_model", "preference", "preference")  # of SFT, DPO and RosePO
LEARNERS = ("sft", "dpo", "rosepo")  # who has a language model
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
        assert (one["seed"], one["dataset"], one["profile"], one["schema"]) == (4, "steam", "micro", 2)
        assert list(one["evaluations"]) == ["candidates-mean"]
        told = one["evaluations"]["candidates-mean"]["facts"]
        assert told == {"name": "candidates", "size": 12, "score": "mean"}
        assert (config["dataset"]["candidates"], config["dataset"]["users"]) == (12, 80)
        assert {part: part in config for part in ("model", "prompt", "sft")} == dict.fromkeys(
            ("model", "prompt", "sft"), name in LEARNERS
        )
        if name in LEARNERS:
            assert config["sft"]["lr"] == 2e-3
        assert ("preference" in config) == (name in ("dpo", "rosepo"))
        assert (one["diagnostics"]["preference"] is None) == (name not in ("dpo", "rosepo"))
        assert (one["diagnostics"]["oracle"] is None) == (name != "rosepo")
    own = {name: one["settings"] for name, one in found.items()}
    assert own["sft"] == {"sft": "once"}
    assert (own["sasrec"]["model"], own["sasrec"]["model.epochs"]) == ("sasrec", 1)
    for name in ("dpo", "rosepo"):
        assert found[name]["config"]["preference"]["epochs"] == 3
        assert found[name]["config"]["preference"]["lr"] == (1e-3 if name == "dpo" else 5e-4)
    parts = {"loss": "dpo", "loss.beta": 0.7, "sampler": "uniform", "smoothing": "zero"}
    assert own["dpo"] == {**parts, "rejected": 1, "rounds": 1}
    told = {name: own["rosepo"][f"smoothing.{name}"] for name in ("cap", "folds", "oracle", "oracle.epochs")}
    assert told == {"cap": 0.4, "folds": 3, "oracle": "sasrec", "oracle.epochs": 1}
    assert (own["rosepo"]["loss"], own["rosepo"]["loss.beta"], own["rosepo"]["sampler"]) == ("rosepo", 0.3, "mixed")
    for name, beta, loss, sampler in (("dpo", 0.7, "dpo", "uniform"), ("rosepo", 0.3, "rosepo", "mixed")):
        told = found[name]["diagnostics"]["preference"]
        assert (told["beta"], told["loss"], told["sampler"], told["pairs_seen"]) == (beta, loss, sampler, 360)
    families = {name: one["family"] for name, one in found.items()}
    assert (families.pop("sft"), families.pop("dpo"), families.pop("rosepo")) == FAMILIES
    assert set(families.values()) == {"recommender"}


def test_data_are_counted_and_hashed(found: dict[str, dict[str, Any]], out: Path) -> None:
    made = cell(out, "sft", *SETTINGS)
    data, test = made.task.data, made.task.test
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
        "popularity": {"steam.test", "steam.candidates-mean.popularity"},
        "sasrec": {"steam.test", "steam.candidates-mean.sasrec"},
        "sft": {"steam.test", "steam.candidates-mean.sft"},
        "dpo": {
            *("steam.test", "steam.candidates-mean.dpo", "steam.candidates-mean.sft", "steam.epsilon.zero.uniform"),
            *("steam.logps.dpo", "steam.logps.reference.uniform"),
        },
        "rosepo": {
            *("steam.test", "steam.candidates-mean.rosepo", "steam.candidates-mean.sft", "steam.logps.rosepo"),
            *("steam.logps.reference.mixed", "steam.judged.mixed", "steam.probe", "steam.epsilon.predicted.mixed"),
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
    """A step of training takes 2 s, packing 5 s, scoring 10 s, all that is asked of a cell with its record 4 s; and
    the tokens of every training pass are counted."""
    counted: dict[str, Any] = {"tokens": [], "steps": []}
    for module, tick in ((loop, 2.0), (training, 5.0), (evaluating, 10.0), (recording, 4.0)):
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
    assert told["popularity"]["scoring_users_per_s"] == 120 / 10
    assert told["popularity"]["training_tokens_per_s"] is None
    assert told["popularity"]["seconds"] == {"scoring": 10.0, "cell": 4.0}


def test_peak_memory_is_the_higher_of_training_and_scoring(tmp_path: Path) -> None:
    made = cell(tmp_path, "sft")
    recording.run(made)
    get = made.task.stages.get
    peaks = [get(stage).report["peak_memory_bytes"] for stage in (made.trained, made.answered["candidates-sum"])]  # type: ignore[arg-type]
    assert records(tmp_path)["sft"]["throughput"]["peak_memory_bytes"] == max(peaks)


@pytest.mark.parametrize(
    ("setting", "watched"),
    [
        ("threads=1", set()),
        ("oracles.sasrec.evaluations=2", {"sasrec", "rosepo"}),
        ("sft.evaluations=2", {"sft", "dpo", "rosepo"}),
        ("method.dpo.training.evaluations=2", {"dpo"}),
    ],
)
def test_what_training_is_watched_by_is_part_of_a_row(setting: str, watched: set[str], tmp_path: Path) -> None:
    """Where it is watched: another metric keeps other weights, and is another row."""
    rows: dict[str, set[str]] = {name: set() for name in METHODS}
    for metric in ("ndcg@10", "hr@1"):
        for name in METHODS:
            made = cell(tmp_path, name, setting, f"validation.metric={metric}")
            rows[name].add(row_of(name, settings_of(made.method), recording._config(made)))
    assert {name for name, found in rows.items() if len(found) == 2} == watched


def test_the_self_check_of_the_evaluated_model_is_told(found: dict[str, dict[str, Any]]) -> None:
    """That of each language model, whose weights differ; none of recommenders."""
    told = {name: one["diagnostics"]["self_check"] for name, one in found.items()}
    assert {name for name, one in told.items() if one} == set(LEARNERS)
    assert all(0 < told[name]["difference"] <= told[name]["tolerance"] < 1e-3 for name in LEARNERS)
    assert len({told[name]["difference"] for name in LEARNERS}) == len(LEARNERS)
