"""Shared work is computed once, verified when it is read, and removed when there is no room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rosepo_bench.base import manifest, records, seeds, store
from rosepo_bench.base.work import Work
from rosepo_bench.pipeline import stages as module
from rosepo_bench.pipeline.stages import Stage, StageFailedError, Stages

WORKER = """
import sys, time
from pathlib import Path
from rosepo_bench.base import progress, store
from rosepo_bench.pipeline.stages import Stage, Stages
out, seconds = Path(sys.argv[1]), float(sys.argv[2])

def compute(folder, work):
    print("computing", flush=True)
    time.sleep(seconds)
    store.write_json(folder / "a.json", 7)

read = lambda folder: store.read_json(folder / "a.json")
print(Stages(out).get(Stage("steam.sft", 1, (), compute, read)), flush=True)
"""


class Made:
    """Makes stages that hold one number, and counts how often each is computed."""

    def __init__(self) -> None:
        self.runs: list[str] = []

    def __call__(self, name: str, inputs: Any = 0, parents: tuple[Stage[Any], ...] = (), size: int = 0) -> Stage[Any]:
        def compute(folder: Path, work: Path) -> None:
            self.runs.append(name)
            store.write_json(folder / "deep" / "a.json", inputs)
            store.write_bytes(folder / "bulk", b"1" * size)

        return Stage(name, inputs, parents, compute, lambda folder: store.read_json(folder / "deep" / "a.json"))


@pytest.fixture
def made() -> Made:
    return Made()


# --- keys -------------------------------------------------------------------------------------------------------------


def test_the_key_is_of_name_inputs_and_parents(made: Made) -> None:
    parent, other = made("a.data", 1), made("a.data", 2)
    stages = [
        made("a.sft", 1, (parent,)),
        made("b.sft", 1, (parent,)),
        made("a.sft", 2, (parent,)),
        made("a.sft", 1, (other,)),
        made("a.sft", 1),
    ]
    assert len({stage.key for stage in stages}) == len(stages)
    assert made("a.sft", 1, (made("a.data", 1),)).key == stages[0].key
    assert stages[0].label == f"a.sft-{stages[0].key[:16]}"


def test_the_key_is_of_the_code() -> None:
    def stage(compute: Any, read: Any, *code: Any) -> Stage[Any]:
        return Stage("a.sft", 1, (), compute, read, code)

    one = stage(store.write_json, store.read_json)
    assert stage(store.write_json, store.read_json, json, Stage).key == one.key, "infrastructure does not count"
    others = [
        stage(records.write_record, store.read_json),
        stage(store.write_json, seeds.derive),
        stage(store.write_json, store.read_json, Work),
    ]
    assert len({other.key for other in (one, *others)}) == 4
    child, of_other = (Stage("a", 1, (parent,), store.write_json, store.read_json) for parent in (one, others[0]))
    assert child.key != of_other.key


def fill(folder: Path, work: Path) -> None: ...


def test_the_code_of_a_stage_is_that_of_its_functions_and_components() -> None:
    stage = Stage("a", 0, (), fill, store.read_json, code=(Made(), manifest.read))
    assert stage.modules == {__name__, "rosepo_bench.base.store", "rosepo_bench.base.manifest"}


# --- once -------------------------------------------------------------------------------------------------------------


def test_a_stage_is_computed_once_with_its_parents(tmp_path: Path, made: Made) -> None:
    parent = made("a.data", 1)
    stage = made("a.sft", 2, (parent,))
    for stages in (Stages(tmp_path), Stages(tmp_path)):
        assert stages.get(stage) == 2
        assert stages.get(stage) == 2
        assert stages.done(stage)
    assert made.runs == ["a.data", "a.sft"]
    assert not stages.work(stage).exists()
    assert list((tmp_path / "leases" / "stages").iterdir()) == []


def test_stored_never_computes(tmp_path: Path, made: Made) -> None:
    stages, stage = Stages(tmp_path), made("a.sft", 2)
    assert stages.stored(stage) is None
    assert not stages.done(stage)
    stages.get(stage)
    assert Stages(tmp_path).stored(stage) == 2
    (stages.folder(stage) / "bulk").unlink()
    assert Stages(tmp_path).stored(stage) is None
    assert made.runs == ["a.sft"]


def test_a_failed_stage_is_not_tried_again_in_this_run(tmp_path: Path) -> None:
    runs: list[str] = []

    def fail(folder: Path, work: Path) -> None:
        (work / "checkpoint").write_text("1")
        runs.append("")
        raise ValueError("no data")

    stages = Stages(tmp_path)
    stage = Stage("a.sft", 0, (), fail, store.read_json)
    child = Stage("a.dpo", 0, (stage,), fail, store.read_json)
    with pytest.raises(ValueError, match="no data"):
        stages.get(stage)
    for one in (stage, child):
        with pytest.raises(StageFailedError, match=r"a\.sft failed earlier: ValueError: no data"):
            stages.get(one)
    assert len(runs) == 1
    assert not stages.folder(stage).exists()
    assert (stages.work(stage) / "checkpoint").exists(), "the next run goes on from it"
    assert stages.lease(stage).attempt()


def test_a_forgotten_stage_is_computed_again(tmp_path: Path, made: Made) -> None:
    stages, stage = Stages(tmp_path), made("a.sft")
    stages.get(stage)
    stages.work(stage).mkdir(parents=True)
    stages.forget(stage)
    assert not stages.folder(stage).exists()
    assert not stages.work(stage).exists()
    stages.get(stage)
    assert made.runs == ["a.sft"] * 2


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Callable[[float], subprocess.Popen[str]]]:
    """Starts processes that read one stage, and ends them."""
    started: list[subprocess.Popen[str]] = []

    def start(seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKER, str(tmp_path), str(seconds)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_two_processes_compute_a_stage_once(workers: Callable[[float], subprocess.Popen[str]]) -> None:
    both = [workers(1.0), workers(1.0)]
    assert sorted(process.communicate(timeout=60)[0] for process in both) == ["7\n", "computing\n7\n"]


def test_a_killed_process_is_followed_at_once(
    workers: Callable[[float], subprocess.Popen[str]], tmp_path: Path
) -> None:
    first = workers(60)
    assert first.stdout is not None
    assert first.stdout.readline() == "computing\n"
    second = workers(0)
    first.kill()
    assert second.communicate(timeout=30)[0] == "computing\n7\n"
    assert [path.name.partition("-")[0] for path in (tmp_path / "stages").iterdir()] == ["steam.sft"]


# --- manifests --------------------------------------------------------------------------------------------------------


def test_the_manifest_says_what_is_there_and_why(tmp_path: Path, made: Made) -> None:
    stages, parent = Stages(tmp_path), made("a.data", 1)
    stage = made("a.sft", {"rate": 2}, (parent,), size=5)
    stages.get(stage)
    facts = store.read_json(stages.folder(stage) / "manifest.json")
    assert {name: facts[name] for name in ("name", "key", "inputs", "parents")} == {
        "name": "a.sft",
        "key": stage.key,
        "inputs": {"rate": 2},
        "parents": [parent.key],
    }
    assert 0 <= facts["seconds"] < 60
    assert {name: file["bytes"] for name, file in facts["files"].items()} == {"bulk": 5, "deep/a.json": 15}
    assert facts["files"]["bulk"]["sha256"] == "d17f25ecfbcc7857f7bebea469308be0b2580943e96d13a3ad98a13675c4bfc2"


def zero_a_byte(folder: Path) -> None:
    content = bytearray((folder / "bulk").read_bytes())
    content[2] = 0
    (folder / "bulk").write_bytes(bytes(content))


def rewritten(change: dict[str, Any]) -> Callable[[Path], None]:
    """Whoever writes the manifest anew can write its hash anew too."""

    def rewrite(folder: Path) -> None:
        facts = store.read_json(folder / "manifest.json") | change
        told = {name: value for name, value in facts.items() if name != "sha256"}
        store.write_json(folder / "manifest.json", {**told, "sha256": seeds.digest(told)})

    return rewrite


def edited(old: str, new: str) -> Callable[[Path], None]:
    """Another text in the manifest, whose hash stays."""

    def rewrite(folder: Path) -> None:
        path = folder / "manifest.json"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return rewrite


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (zero_a_byte, "bulk has other bytes than when it was written"),
        (lambda folder: (folder / "bulk").write_bytes(b"1"), "bulk has another size than when it was written"),
        (lambda folder: (folder / "deep/a.json").unlink(), "deep/a.json is missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "it has no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "its manifest.json is unreadable"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "its manifest.json is not of schema 2"),
        (rewritten({"schema": 0}), "its manifest.json is not of schema 2"),
        (rewritten({"name": None}), "its manifest.json is not of schema 2"),
        (rewritten({"files": {"bulk": {}}}), "its manifest.json is not of schema 2"),
        (rewritten({"files": 3}), "its manifest.json is not of schema 2"),
        (rewritten({"files": {"bulk": {"bytes": 5, "sha256": None}}}), "its manifest.json is not of schema 2"),
        (rewritten({"files": {"../bulk": {"bytes": 5, "sha256": "0"}}}), "its manifest.json is not of schema 2"),
        (rewritten({"files": {"/etc/passwd": {"bytes": 5, "sha256": "0"}}}), "its manifest.json is not of schema 2"),
        (rewritten({"key": "0"}), "its manifest.json has another key"),
        (edited('"bytes": 5', '"bytes": 6'), "its manifest.json has changed since it was written"),
        (edited('"seconds": ', '"seconds": 1'), "its manifest.json has changed since it was written"),
    ],
)
def test_damage_is_said_and_repaired(
    tmp_path: Path, made: Made, said: list[str], damage: Callable[[Path], None], text: str
) -> None:
    stages, stage = Stages(tmp_path), made("a.sft", 2, size=5)
    stages.get(stage)
    damage(stages.folder(stage))
    said.clear()
    again = Stages(tmp_path)
    assert again.get(stage) == 2
    folder = again.folder(stage)
    first = f"  a.sft: the stored result is broken and is computed again: {text} ({folder})"
    assert said == [first, "  a.sft"]
    assert manifest.verify(folder, stage.key)
    assert Stages(tmp_path).get(stage) == 2
    assert made.runs == ["a.sft"] * 2


def test_files_are_verified_once_in_a_process(tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = made("a.sft", 2)
    Stages(tmp_path).get(stage)
    stages = Stages(tmp_path)
    stages.get(stage)
    monkeypatch.setattr(manifest, "verify", None)
    assert stages.get(stage) == 2


def test_a_result_that_its_reader_refuses_is_computed_again(tmp_path: Path, said: list[str]) -> None:
    """The manifest vouches for the bytes that were written, not for what they say."""
    texts = ["{", "1"]

    def compute(folder: Path, work: Path) -> None:
        (folder / "a.json").write_text(texts.pop(0))

    stage = Stage("a.sft", 0, (), compute, lambda folder: store.read_json(folder / "a.json"))
    with pytest.raises(ValueError, match="not valid JSON"):
        Stages(tmp_path).get(stage)
    assert Stages(tmp_path).get(stage) == 1
    assert "computed again" in said[1]


# --- measured ---------------------------------------------------------------------------------------------------------


def test_measured_is_the_median_by_name(tmp_path: Path, made: Made) -> None:
    stages = Stages(tmp_path)
    assert stages.measured() == {}
    seconds: dict[str, list[float | None]] = {
        "a.sft": [1.0, 9.0],
        "b.sft": [2.0],
        "b.logps.sft": [4.0, 6.0],
        "alone": [3],
        "c.sft": [None],
    }
    for name, each in seconds.items():
        for count, one in enumerate(each):
            stage = made(name, count)
            stages.get(stage)
            rewritten({"seconds": one})(stages.folder(stage))
    store.write_text(tmp_path / "stages" / "broken" / "manifest.json", "{")
    assert stages.measured() == {"a.sft": 5.0, "alone": 3, "b.logps.sft": 5.0, "b.sft": 2.0}
    assert module.kind("b.logps.sft") == "logps.sft"


def test_an_interrupted_stage_has_no_seconds(tmp_path: Path, made: Made) -> None:
    stages, stage = Stages(tmp_path), made("a.sft")
    stages.work(stage).mkdir(parents=True)
    (stages.work(stage) / "checkpoint").write_text("1")
    stages.get(stage)
    assert manifest.read(stages.folder(stage))["seconds"] is None
    assert stages.measured() == {}


# --- eviction ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def four(tmp_path: Path, made: Made) -> list[Stage[Any]]:
    """Four finished stages of about 1000 bytes each; the last is the least recently read."""
    all_of_them = [made(f"a.{name}", size=998) for name in "wxyz"]
    stages = Stages(tmp_path)
    for age, stage in enumerate(all_of_them):
        stages.get(stage)
        os.utime(stages.folder(stage) / "manifest.json", (1000 - age,) * 2)
    return all_of_them


def left(out: Path) -> list[str]:
    return sorted(path.name[2] for path in (out / "stages").iterdir())


@pytest.mark.parametrize(
    ("limit", "expected"), [(4000, "wxyz"), (3999, "wxy"), (2000, "wx"), (1999, "w"), (0, ""), (float("inf"), "wxyz")]
)
def test_the_least_recently_read_go_first(tmp_path: Path, four: list[Stage[Any]], limit: float, expected: str) -> None:
    Stages(tmp_path).evict(limit, keep=())
    assert left(tmp_path) == list(expected)


def test_reading_makes_a_stage_recent(tmp_path: Path, four: list[Stage[Any]], said: list[str]) -> None:
    Stages(tmp_path).get(four[3])
    said.clear()
    Stages(tmp_path).evict(3000, keep=())
    assert left(tmp_path) == ["w", "x", "z"]
    assert said == [f"  removed {four[2].label} (0.0 MiB): the stages exceed their limit"]


def test_kept_and_held_stages_stay(tmp_path: Path, four: list[Stage[Any]]) -> None:
    stages = Stages(tmp_path)
    with stages.lease(four[3]):
        stages.evict(0, keep={four[2].key})
    assert left(tmp_path) == ["y", "z"]
    assert list((tmp_path / "leases" / "stages").iterdir()) == []
    stages.evict(1000, keep={four[2].key})
    assert left(tmp_path) == ["y"]


def test_an_evicted_stage_is_computed_again(tmp_path: Path, made: Made, four: list[Stage[Any]]) -> None:
    stages = Stages(tmp_path)
    stages.get(four[0])
    Stages(tmp_path).evict(0, keep=())
    made.runs.clear()
    assert stages.get(four[0]) == 0
    assert stages.folder(four[0]).is_dir()
    assert made.runs == ["a.w"]


def test_nothing_to_evict(tmp_path: Path) -> None:
    Stages(tmp_path).evict(0, keep=())
