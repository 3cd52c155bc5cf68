"""What is read from disk is what was written, or refused with a sentence; what is written follows no link."""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rosepo_bench.base import store
from rosepo_bench.base.errors import UserError

JSON = {
    "empty": b"",
    "truncated": b'{"a": [1, 2',
    "byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "utf-16": json.dumps({"a": 1}).encode("utf-16"),
    "latin-1": '{"a": "é"}'.encode("latin-1"),
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "100,000 levels": b"[" * 100_000,
    "100,000 closed levels": b"[" * 100_000 + b"]" * 100_000,
    "65 levels": b'{"a":' * 64 + b"[]" + b"}" * 64,
    "binary": bytes(range(256)),
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("content", JSON.values(), ids=JSON)
def test_json_that_we_do_not_write_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json: not valid JSON .*; delete it and run again"):
        store.read_json(path)


def test_64_levels_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"a":' * 63 + b"[]" + b"}" * 63)
    assert store.read_json(tmp_path / "a.json")


def test_undecodable_bytes_in_a_text_come_back(tmp_path: Path) -> None:
    """As in the name of a file that an error's text holds."""
    text = os.fsdecode(b"caf\xe9.csv")
    store.write_json(tmp_path / "a.json", {"reason": text})
    assert store.read_json(tmp_path / "a.json") == {"reason": text}


def with_header(shape: str, dtype: str = "<i8") -> bytes:
    """An array of 8 bytes whose header says something else."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(8)


def zipped(members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def encrypted() -> bytes:
    content = bytearray(zipped({"a.npy": saved(np.arange(3))}))
    for mark, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + flag] |= 1
    return bytes(content)


class Planted:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.touch, (self.mark,)


NPZ = {
    "an array of 8 TB": zipped({"a.npy": with_header("(1000000000000,)")}),
    "an array larger than its file": zipped({"a.npy": with_header("(100,)")}),
    "a shape below zero": zipped({"a.npy": with_header("(-1,)")}),
    "a shape of text": zipped({"a.npy": with_header("('x',)")}),
    "an unknown dtype": zipped({"a.npy": with_header("(1,)", "<q9")}),
    "an inflated member": zipped({"a.npy": saved(np.zeros(10**6))}, zipfile.ZIP_DEFLATED),
    "a member that is no array": zipped({"a.npy": saved(np.arange(3)), "b.txt": b"text"}),
    "an unknown version": zipped({"a.npy": b"\x93NUMPY\x09\x00" + bytes(100)}),
    "encrypted": encrypted(),
    "no member": zipped({"a.npy": b""}),
}


@pytest.mark.parametrize("content", NPZ.values(), ids=NPZ)
def test_arrays_that_we_do_not_write_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.npz: not a readable \.npz file .*; delete it and run again"):
        store.read_npz(path)


def test_a_header_says_what_the_file_holds(tmp_path: Path) -> None:
    """The headers above are wrong in nothing else."""
    (tmp_path / "a.npz").write_bytes(zipped({"a.npy": with_header("(1,)")}))
    assert store.read_npz(tmp_path / "a.npz")["a"].tolist() == [0]


@pytest.mark.parametrize("inside", [True, False])
def test_nothing_is_unpickled(inside: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "a.npz"
    planted = Planted(mark)
    path.write_bytes(pickle.dumps(planted))
    if inside:
        np.savez(path, a=np.array([planted], dtype=object))
    with pytest.raises(UserError, match=r"a\.npz"):
        store.read_npz(path)
    assert not mark.exists()


def no_file(kind: str, path: Path) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    else:
        path.symlink_to(path.name)


WORDS = {"folder": "a folder", "pipe": "a pipe or a device", "socket": "a pipe or a device", "link to itself": "a link"}


@pytest.mark.parametrize(("kind", "words"), WORDS.items(), ids=WORDS)
def test_what_is_no_file_is_named(kind: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe is not waited for."""
    monkeypatch.chdir(tmp_path)  # a socket's name must be short
    no_file(kind, Path("a"))
    for read in (store.read_json, store.read_npz):
        with pytest.raises(UserError, match=f"a: {words} stands where a file is needed; remove it"):
            read(Path("a"))


def test_a_folder_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(UserError, match="/a: a folder stands where a file is needed; remove it"):
        store.write_text(tmp_path / "a", "x")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]


def test_a_write_replaces_a_link_and_not_its_target(tmp_path: Path) -> None:
    target, folder = tmp_path / "target", tmp_path / "folder"
    target.write_text("precious")
    folder.mkdir()
    for name, leads in (("a", target), ("b", folder), ("c", tmp_path / "nowhere")):
        (tmp_path / name).symlink_to(leads)
    store.write_text(tmp_path / "a", "new")
    for name in "bc":
        with store.atomic_folder(tmp_path / name) as new:
            (new / "inside").write_text("new")
        assert not (tmp_path / name).is_symlink()
    assert (target.read_text(), (tmp_path / "a").read_text(), list(folder.iterdir())) == ("precious", "new", [])


def test_a_link_among_temporaries_is_neither_locked_nor_removed(tmp_path: Path) -> None:
    """What is swept is what this program left."""
    target = tmp_path / "target"
    target.mkdir()
    (target / "kept").write_text("precious")
    (target / ".lock").symlink_to("kept")
    (tmp_path / ".a.tmp-1").symlink_to("target/kept")
    (tmp_path / ".a.tmp-2").symlink_to("target")
    store.write_text(tmp_path / "a", "x")
    assert (target / "kept").read_text() == "precious"


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    looks: list[Callable[[Path], object]] = [store.there, store.folders, store.read_json, store.remove]
    for look in (*looks, lambda path: store.write_text(path, "x")):
        with pytest.raises(UserError, match="/a: a file stands where a folder is needed"):
            look(tmp_path / "a" / "b" / "c")


def test_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    assert store.there(tmp_path / "link")
    assert not store.there(tmp_path / "none" / "deep")
    (tmp_path / "b").mkdir()
    assert store.folders(tmp_path) == [tmp_path / "b"]
    assert store.folders(tmp_path / "none") == []


def test_removed_is_the_link_and_not_its_target(tmp_path: Path) -> None:
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("folder")
    store.remove(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    for _ in range(2):
        store.remove(tmp_path / "folder")
        assert list(tmp_path.iterdir()) == []
