"""A finished output folder in which something has been changed: `run` names it and makes it again, and all numbers are
those of before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from running import MICRO, assert_same

from rosepo_bench import cli

METHODS = ("--methods", "popularity,sft", "--profile", str(MICRO), "--offline")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    assert cli.main(["run", *METHODS, "--out", str(out), "--cache-dir", str(out / "cache")]) == 0
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


def call(verb: str, out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit status and all that is said."""
    capsys.readouterr()
    given = [] if verb == "report" else [*METHODS, "--cache-dir", str(out / "cache")]
    status = cli.main([verb, *given, "--out", str(out)])
    return status, "".join(capsys.readouterr())


def place(out: Path, pattern: str) -> Path:
    (found,) = out.glob(pattern)
    return found


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def nest(path: Path) -> None:
    path.write_bytes(b"[" * 100_000)


def mark(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def better(path: Path) -> None:
    told = json.loads(path.read_text())
    told["evaluations"]["candidates-sum"]["metrics"]["hr@1"]["value"] = 0.99
    path.write_text(json.dumps(told))


RECORD = "records/steam/sft/seed0-*/record.json"
PREDICTIONS = "records/steam/sft/seed0-*/candidates-sum.npz"


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        *((RECORD, damage) for damage in (better, nest, mark, folder, link)),
        *((PREDICTIONS, damage) for damage in (flip, folder, link)),
    ],
)
def test_a_changed_record_is_named_and_made_again(
    pattern: str,
    damage: Callable[[Path], None],
    out: Path,
    finished: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = place(out, pattern)
    damage(path)
    assert "1 of 2 cells to do" in call("plan", out, capsys)[1]
    status, text = call("report", out, capsys)
    assert status == 0
    assert f"- {path}" in text
    status, text = call("run", out, capsys)
    assert status == 0
    assert f"is made again: {path}" in text
    assert_same(finished, out)
    assert (out / "report.md").read_text() == (finished / "report.md").read_text()


def test_another_cells_record_is_not_believed(out: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Copied, or as a link, which is not written through."""
    sft, popularity = (place(out, f"records/steam/{name}/seed0-*") for name in ("sft", "popularity"))
    for plant in (shutil.copytree, lambda source, target: target.symlink_to(source)):
        shutil.rmtree(sft)
        plant(popularity, sft)
        assert "is the record of another cell" in call("report", out, capsys)[1]
        status, text = call("run", out, capsys)
        assert status == 0
        assert "is the record of another cell" in text
        assert not sft.is_symlink()
        assert_same(finished, out)


@pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors", "report.json"])
def test_a_changed_stage_is_named_and_made_again(
    name: str, out: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(out / "records")
    flip(place(out, f"stages/steam.sft-*/{name}"))
    shutil.rmtree(place(out, "stages/steam.candidates-sum.sft-*"))
    status, text = call("run", out, capsys)
    assert status == 0
    assert "steam.sft: the stored result is broken and is computed again: " in text
    assert_same(finished, out)


@pytest.mark.parametrize("blocked", ["records", "leases", "stages", "work"])
def test_a_file_in_a_folders_place_is_refused(blocked: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in {"records", "stages", blocked}:
        shutil.rmtree(out / name)
    (out / blocked).write_text("precious")
    status, text = call("run", out, capsys)
    assert status == 2
    assert f"{out / blocked}: a file stands where a folder is needed" in text
    assert (out / blocked).read_text() == "precious"


@pytest.mark.parametrize("verb", ["run", "plan", "report"])
def test_a_file_given_as_the_output_folder_is_refused(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("precious")
    status, text = call(verb, tmp_path / "out", capsys)
    assert (status, text.count("\n")) == (2, 1)
    assert f"error: {tmp_path / 'out'}: a file stands where a folder is needed; give another folder" in text
    assert (tmp_path / "out").read_text() == "precious"


def test_links_at_the_places_of_files_empty_nothing(
    out: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reports replace them, a lease refuses them."""
    precious, sft = out / "precious", place(out, "records/steam/sft/seed0-*")
    precious.write_text("text")
    for name in ("report.md", "results.csv"):
        (out / name).unlink()
        (out / name).symlink_to(precious)
    shutil.rmtree(sft)
    lease = out / "leases" / "cells" / sft.name
    lease.symlink_to(precious)
    status, text = call("run", out, capsys)
    assert status == 2
    assert f"{lease}: a link stands where a file is needed; remove it" in text
    lease.unlink()
    assert call("run", out, capsys)[0] == 0
    assert precious.read_text() == "text"
    assert_same(finished, out)
