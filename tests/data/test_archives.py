"""Archives that are not to be unpacked, files pinned by content, and checksums that are not believed."""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile
from pathlib import Path

import pytest

from rosepo_bench.base.config import DatasetConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.data import catalog, fetch
from rosepo_bench.data.fetch import Archive
from rosepo_bench.data.sources import SOURCES

ARCHIVE = Archive("http", "", "set.zip", "", {"set/data": "data"})


def write(path: Path, *members: tuple[str | zipfile.ZipInfo, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        for name, text in (("set/data", "rows\n"), *members):
            content.writestr(name, text)
    return path


def refused(path: Path, why: str) -> None:
    with pytest.raises(UserError, match=why):
        fetch.unpack(ARCHIVE, path, path.parent / "out")
    assert not (path.parent / "out").exists()


def test_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("set/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    refused(write(tmp_path / "set.zip", (link, "/etc/passwd")), "member 'set/link' is a link")


def test_an_archive_of_too_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "set.zip", ("a", ""), ("b", ""))
    monkeypatch.setattr(fetch, "MOST_MEMBERS", 2)
    refused(path, "3 members, of at most 2")
    monkeypatch.setattr(fetch, "MOST_MEMBERS", 3)
    fetch.unpack(ARCHIVE, path, tmp_path / "out")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "set.zip", ("set/more", "0" * 10_000_000))
    bomb = Archive("http", "", "set.zip", "", {"set/data": "data", "set/more": "more"})
    monkeypatch.setattr(fetch, "MOST_BYTES", 9_999_999)
    with pytest.raises(UserError, match="unpacks to 10000005 bytes, of at most 9999999"):
        fetch.unpack(bomb, path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    fetch.unpack(ARCHIVE, path, tmp_path / "out")  # what is not needed is not unpacked, whatever its size


def test_a_size_that_lies_is_not_exceeded(tmp_path: Path) -> None:
    path = write(tmp_path / "set.zip")
    whole = path.read_bytes()
    size = (5).to_bytes(4, "little")  # of "rows\n", in the member's own header and in the directory
    assert whole.count(size) >= 2
    path.write_bytes(whole.replace(size, (2).to_bytes(4, "little")))
    refused(path, "not a complete zip archive")


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = write(tmp_path / "set.zip", ("set/data", "other rows\n"))
    refused(path, "set/data is there twice")


@pytest.mark.parametrize(("place", "value", "why"), [(6, 1, "is encrypted"), (8, 99, "cannot be unpacked")])
def test_what_cannot_be_read_is_refused_in_a_sentence(tmp_path: Path, place: int, value: int, why: str) -> None:
    """The flag of encryption, and the method of compression, in the member's header and in the directory."""
    path = write(tmp_path / "set.zip")
    content = bytearray(path.read_bytes())
    for start in (0, content.index(b"PK\x01\x02") + 2):
        content[start + place] = value
    path.write_bytes(content)
    refused(path, why)


def test_a_download_never_goes_through_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The link is replaced; what it points to is not written."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "set.zip").symlink_to(tmp_path / "elsewhere")
    made = write(tmp_path / "made.zip")

    def pip(archive: Archive, target: Path) -> None:
        made.replace(target)

    monkeypatch.setattr(fetch, "_pip", pip)
    archive = Archive("pip", "set==1", "set.zip", "", ARCHIVE.members)
    assert zipfile.is_zipfile(fetch.download(archive, tmp_path / "cache"))
    assert not (tmp_path / "elsewhere").exists()


def put_100k(folder: Path, last: str = "3\t3\t1\t881250950\n") -> Path:
    folder.mkdir(parents=True)
    (folder / "u.data").write_text("20\t7\t5\t881250949\n" * 99_999 + last)
    (folder / "u.item").write_text("7|T|01-Jan-1995||x|" + "|".join("0" * 19) + "\n")
    return folder


def test_a_changed_file_of_movielens_100k_is_named(tmp_path: Path) -> None:
    folder = put_100k(tmp_path / "data" / "ml-100k")
    config = DatasetConfig(source="ml-100k")
    found = hashlib.sha256((folder / "u.data").read_bytes()).hexdigest()
    for _ in range(2):  # nor is the wrong sum recorded and believed the second time
        with pytest.raises(UserError, match=rf"u\.data: sha256 is {found}, published is 06416e59.*: the file was"):
            catalog.resolve("ml-100k", config, tmp_path / "data", tmp_path / "cache", offline=True)


def test_the_files_of_the_wheel_are_those_that_are_pinned(ml100k_cache: Path) -> None:
    spec = SOURCES["ml-100k"]
    members = [name for archive in spec.archives for name in archive.members.values()]
    assert sorted(spec.published) == sorted(members)
    for path in sorted((ml100k_cache / "ml-100k").iterdir()):
        assert fetch.file_hash(path) == spec.published[path.name]
    rows = (ml100k_cache / "ml-100k" / "ml-100k.inter").read_bytes().partition(b"\n")[2]
    assert hashlib.sha256(rows).hexdigest() == spec.published["u.data"]  # which are the owner's, below a header


def test_an_edited_sum_is_not_believed(tmp_path: Path) -> None:
    path, book = tmp_path / "ratings.csv", tmp_path / "checksums.json"
    path.write_text("one")
    first = fetch.fingerprint(path, book)
    entries = json.loads(book.read_text())
    entries[str(path)]["sha256"] = "0" * 64
    book.write_text(json.dumps(entries))
    assert fetch.fingerprint(path, book) == first
    book.write_text(json.dumps({str(path): {"bytes": 3}}))
    assert fetch.fingerprint(path, book) == first


@pytest.mark.parametrize("text", ["[]", "3", '{"/a": 3}', '{"/a": null}'])
def test_a_file_that_holds_no_sums_is_named(tmp_path: Path, text: str) -> None:
    path, book = tmp_path / "ratings.csv", tmp_path / "checksums.json"
    path.write_text("one")
    book.write_text(text)
    with pytest.raises(UserError, match=r"checksums\.json: not the checksums of raw files; delete it"):
        fetch.fingerprint(path, book)


@pytest.mark.parametrize("path", ["a" * 3000, "a\0b"])
@pytest.mark.parametrize("source", ["atomic", "ml-1m"])
def test_a_path_that_no_file_can_have_is_refused(tmp_path: Path, source: str, path: str) -> None:
    with pytest.raises(UserError, match=rf"{source}: path 'a.*cannot be looked into"):
        catalog.resolve(source, DatasetConfig(source=source, path=path), None, tmp_path, offline=True)


def test_a_users_own_link_is_read(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("one")
    (tmp_path / "ratings.csv").symlink_to(tmp_path / "real")
    assert fetch.fingerprint(tmp_path / "ratings.csv", tmp_path / "checksums.json").bytes == 3
