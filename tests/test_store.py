"""Files are complete or absent, whatever happens to their writer."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rosepo_bench.base import store
from rosepo_bench.base.errors import UserError

HOLDER = """
import sys, time
from pathlib import Path
from rosepo_bench.base import store
with store.{what}(Path(sys.argv[1])) as folder:
    {more}
    print("held", flush=True)
    time.sleep(60)
"""


def hold(path: Path, what: str, more: str = "pass") -> subprocess.Popen[str]:
    """A process that sits in ``with store.<what>(path)`` until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(what=what, more=more), str(path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def fail(code: int) -> Callable[..., Any]:
    def raising(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return raising


def test_values_come_back(tmp_path: Path) -> None:
    content = {"b": [1, 2.5, None, "ε|"], "a": {"x": True}}
    store.write_json(tmp_path / "deep/a.json", content)
    assert store.read_json(tmp_path / "deep/a.json") == content
    assert list(store.read_json(tmp_path / "deep/a.json")) == ["b", "a"]
    arrays = {"rank": np.arange(6, dtype=np.int32).reshape(2, 3), "empty": np.zeros((0, 4), np.float32)}
    store.write_npz(tmp_path / "a.npz", **arrays)
    back = store.read_npz(tmp_path / "a.npz")
    assert list(back) == ["rank", "empty"]
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "deep"]


def test_equal_arrays_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        store.write_npz(tmp_path / name, rank=np.arange(5))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_json_takes_numpy_and_refuses_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    store.write_json(path, {"f": np.float32(0.5), "i": np.int64(3), "v": np.arange(2)})
    assert store.read_json(path) == {"f": 0.5, "i": 3, "v": [0, 1]}
    with pytest.raises(ValueError, match=r"a\.json"):
        store.write_json(path, {"f": float("nan")})
    with pytest.raises(TypeError, match="set cannot"):
        store.write_json(path, {"f": {1}})
    assert store.read_json(path)["f"] == 0.5


def test_pickle_is_neither_written_nor_read(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="'a' holds objects"):
        store.write_npz(tmp_path / "a.npz", a=np.array([{}], dtype=object))
    assert list(tmp_path.iterdir()) == []
    np.savez(tmp_path / "b.npz", a=np.array([{}], dtype=object))
    (tmp_path / "c.npz").write_bytes(pickle.dumps([1]))
    for name in ("b.npz", "c.npz"):
        with pytest.raises(UserError, match=name):
            store.read_npz(tmp_path / name)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_torn_file_is_named(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.npz"
    store.write_npz(path, a=np.arange(1000))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"a\.npz.*delete it"):
        store.read_npz(path)
    text = tmp_path / "a.json"
    store.write_json(text, list(range(100)))
    text.write_bytes(text.read_bytes()[: int(200 * share)])
    with pytest.raises(UserError, match=r"a\.json.*delete it"):
        store.read_json(text)


def test_flipped_byte_and_bare_array_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    store.write_npz(path, a=np.arange(1000))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"a\.npz"):
        store.read_npz(path)
    np.save(tmp_path / "b.npy", np.arange(3))
    with pytest.raises(UserError, match=r"b\.npy"):
        store.read_npz(tmp_path / "b.npy")


def test_missing_file_is_named(tmp_path: Path) -> None:
    for read in (store.read_json, store.read_npz):
        with pytest.raises(UserError, match="absent: no such file"):
            read(tmp_path / "absent")


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("code", "text"),
    [
        (errno.ENOSPC, "disk full"),
        (errno.EDQUOT, "disk full"),
        (errno.EACCES, "denied"),
        (errno.EROFS, "Read-only"),
    ],
)
def test_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, text: str
) -> None:
    path = tmp_path / "a.json"
    store.write_json(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(store.os, call, fail(code))
        with pytest.raises(UserError, match=text) as caught:
            store.write_json(path, "new")
        with pytest.raises(UserError, match=text):
            store.write_npz(tmp_path / "b.npz", a=np.arange(3))
    assert "a.json" in str(caught.value)
    assert store.read_json(path) == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_other_errors_are_not_dressed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.os, "replace", fail(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        store.write_text(tmp_path / "a", "x")
    assert list(tmp_path.iterdir()) == []


def test_a_write_cut_short_by_a_real_limit(tmp_path: Path) -> None:
    """The kernel itself refuses the bytes (a size limit stands in for a full disk)."""
    script = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from rosepo_bench.base import store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    store.write_npz(Path(sys.argv[1]), a=np.arange(100_000))
except OSError as error:
    print(error.errno)
"""
    path = tmp_path / "a.npz"
    store.write_npz(path, a=np.arange(3))
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{errno.EFBIG}\n"
    assert len(store.read_npz(path)["a"]) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]


def test_file_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        store.write_text(tmp_path / "a", "x")
        with store.atomic_folder(tmp_path / "b"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o750


def test_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model"
    with store.atomic_folder(path) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("1")
        assert not path.exists()
    assert (path / "sub" / "a").read_text() == "1"
    with pytest.raises(FileNotFoundError), store.atomic_folder(path) as folder:
        (folder / "b").write_text("2").to_bytes() + (folder / "absent").read_bytes()
    assert (path / "sub" / "a").read_text() == "1"
    with store.atomic_folder(path) as folder:
        (folder / "c").write_text("3")
    assert [entry.name for entry in path.iterdir()] == ["c"]
    assert [entry.name for entry in path.parent.iterdir()] == ["model"]


def test_full_disk_within_a_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="disk full"), store.atomic_folder(tmp_path / "model"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_the_killed_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    path = tmp_path / "model"
    dead = hold(path, "atomic_folder", '(folder / "half").write_text("x")')
    alive = hold(path, "atomic_folder", '(folder / "other").write_text("x")')
    try:
        kill(dead)
        assert not path.exists()
        assert len(list(tmp_path.iterdir())) == 2
        with store.atomic_folder(path) as folder:
            (folder / "whole").write_text("x")
        names = sorted(entry.relative_to(tmp_path).parts[-1] for entry in tmp_path.rglob("*") if entry.is_file())
        assert names == [".lock", "other", "whole"]
    finally:
        kill(alive)


def test_a_killed_writers_temporary_is_removed(tmp_path: Path) -> None:
    process = hold(tmp_path / "a.json", "_replacing")
    kill(process)
    assert len(list(tmp_path.iterdir())) == 1
    store.write_json(tmp_path / "b.json", 1)
    assert len(list(tmp_path.iterdir())) == 2, "another file's leftovers are not its business"
    store.write_json(tmp_path / "a.json", 1)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.json", "b.json"]


@pytest.mark.parametrize("folder", [False, True])
def test_a_temporary_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    """Another writer's sweep may fall between a temporary's creation and its lock."""
    flock = store.fcntl.flock
    swept: list[Path] = []

    def sweeping(file: Any, operation: int) -> None:
        if not swept:
            swept.append(Path(os.fsdecode(file.name)))
            swept[0].unlink()
        flock(file, operation)

    monkeypatch.setattr(store.fcntl, "flock", sweeping)
    if folder:
        with store.atomic_folder(tmp_path / "a") as inside:
            (inside / "b").write_text("x")
        assert (tmp_path / "a" / "b").read_text() == "x"
    else:
        store.write_text(tmp_path / "a", "x")
        assert (tmp_path / "a").read_text() == "x"
    assert len(swept) == 1


def test_many_writers_of_one_file(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from rosepo_bench.base import store
for _ in range(100):
    store.write_json(Path(sys.argv[1]), list(range(1000)))
"""
    path = tmp_path / "a.json"
    writers = [subprocess.Popen([sys.executable, "-c", script, str(path)]) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert store.read_json(path) == list(range(1000))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]
