"""Checksums, archives and downloads; nothing here needs a network."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rosepo_bench.base import progress
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.store import read_json
from rosepo_bench.data import fetch
from rosepo_bench.data.fetch import Archive

ARCHIVE = Archive("http", "", "set.zip", "", {"set/data": "data", "set/items": "items"})


def make_zip(path: Path, **extra: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr("set/data", "rows\n" * 1000)
        content.writestr("set/items", "titles\n")
        for name, text in extra.items():
            content.writestr(name, text)
    return path


def md5(path: Path) -> str:
    return "md5:" + hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        return None


@contextmanager
def served(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_only_the_named_members_are_unpacked(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "set.zip", **{"set/run.py": "print()"})
    fetch.unpack(replace(ARCHIVE, checksum=md5(path)), path, tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["data", "items"]
    assert (tmp_path / "out" / "data").read_text() == "rows\n" * 1000


@pytest.mark.parametrize("name", ["../evil", "set/../../evil", "/evil", "..\\evil", "C:/evil"])
def test_an_archive_that_reaches_outside_is_refused_whole(tmp_path: Path, name: str) -> None:
    path = make_zip(tmp_path / "in" / "set.zip", **{name: "evil"})
    with pytest.raises(UserError, match="points outside"):
        fetch.unpack(ARCHIVE, path, tmp_path / "in" / "out")
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["set.zip"]


def test_a_wrong_checksum_names_both_and_unpacks_nothing(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "set.zip")
    with pytest.raises(UserError, match=f"{md5(path).removeprefix('md5:')}, published is 0123"):
        fetch.unpack(replace(ARCHIVE, checksum="md5:0123"), path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("cut", [40, -40])
def test_a_truncated_or_corrupt_archive_leaves_no_folder(tmp_path: Path, cut: int) -> None:
    path = make_zip(tmp_path / "set.zip")
    content = bytearray(path.read_bytes())
    if cut > 0:
        content[cut] ^= 0xFF  # inside the compressed data: the directory still looks whole
    path.write_bytes(content if cut > 0 else content[:cut])
    with pytest.raises(UserError, match=re.escape(f"{path}: not a complete zip archive")):
        fetch.unpack(ARCHIVE, path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_archive_without_the_members_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lacks set/more"):
        fetch.unpack(replace(ARCHIVE, members={"set/more": "more"}), make_zip(tmp_path / "set.zip"), tmp_path / "out")


def test_a_download_is_checked_before_it_gets_its_name(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "web" / "set.zip")
    with served(path.parent) as url:
        archive = replace(ARCHIVE, where=f"{url}/set.zip", checksum=md5(path))
        assert fetch.download(archive, tmp_path / "good").read_bytes() == path.read_bytes()
        with pytest.raises(UserError, match="not the file that was published"):
            fetch.download(replace(archive, checksum="md5:" + "0" * 32), tmp_path / "bad")
        with pytest.raises(UserError, match="cannot be fetched"):
            fetch.download(replace(archive, where=f"{url}/gone.zip"), tmp_path / "bad")
    assert list((tmp_path / "bad").iterdir()) == []
    assert fetch.download(archive, tmp_path / "good").is_file()  # there already: the server is not asked


def test_a_connection_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    class Broken(Quiet):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    archive = replace(ARCHIVE, where=f"http://127.0.0.1:{server.server_address[1]}/set.zip", checksum="")
    try:
        with pytest.raises(UserError, match="cannot be fetched"):
            fetch.download(archive, tmp_path / "out")
    finally:
        server.shutdown()
        server.server_close()
    assert list((tmp_path / "out").iterdir()) == []


def test_pip_gets_a_wheel_that_is_checked_and_never_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        folder = next(part for part in command if part.startswith("--dest=")).removeprefix("--dest=")
        make_zip(Path(folder) / "set.zip")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    archive = replace(ARCHIVE, how="pip", where="set==1", checksum=md5(make_zip(tmp_path / "set.zip")))
    assert fetch.download(archive, tmp_path / "out").name == "set.zip"
    assert {"--no-deps", "--only-binary=:all:", "set==1"} <= set(seen[0])
    with pytest.raises(UserError, match="published is 0123"):
        fetch.download(replace(archive, checksum="md5:0123"), tmp_path / "bad")
    assert list((tmp_path / "bad").iterdir()) == []


def test_a_failing_pip_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "noise\nERROR: No matching distribution\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(UserError, match="pip cannot fetch it: ERROR: No matching distribution"):
        fetch.download(replace(ARCHIVE, how="pip", where="set==1"), tmp_path)


def test_the_first_checksum_of_a_fetched_file_is_recorded_and_enforced(tmp_path: Path) -> None:
    path, book = tmp_path / "ratings.csv", tmp_path / "cache" / "checksums.json"
    path.write_text("one")
    first = fetch.fingerprint(path, book, fixed=True)
    expected = hashlib.sha256(b"one").hexdigest()
    assert (first.name, first.bytes, first.sha256) == ("ratings.csv", 3, expected)
    assert read_json(book)[str(path.resolve())]["sha256"] == expected
    path.write_text("two")
    os.utime(path, ns=(0, 0))
    with pytest.raises(UserError) as refused:
        fetch.fingerprint(path, book, fixed=True)
    for part in (str(path), expected, hashlib.sha256(b"two").hexdigest(), f"remove its entry from {book}"):
        assert part in str(refused.value)
    path.write_text("one")  # put back: another time of change, the same content
    assert fetch.fingerprint(path, book, fixed=True) == first


def test_a_users_own_edited_file_is_hashed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, book = tmp_path / "ratings.csv", tmp_path / "checksums.json"
    path.write_text("one")
    fetch.fingerprint(path, book)
    path.write_text("two")
    os.utime(path, ns=(0, 0))
    with progress.shown():
        assert fetch.fingerprint(path, book).sha256 == hashlib.sha256(b"two").hexdigest()
    assert f"{path}: changed since it was last used" in capsys.readouterr().out
    assert fetch.fingerprint(path, book, fixed=True).sha256 == hashlib.sha256(b"two").hexdigest()


def test_an_unchanged_file_is_not_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, book = tmp_path / "ratings.csv", tmp_path / "checksums.json"
    path.write_text("one")
    first = fetch.fingerprint(path, book)
    monkeypatch.setattr(fetch, "file_hash", lambda *_: pytest.fail("hashed again"))
    assert fetch.fingerprint(path, book) == first
