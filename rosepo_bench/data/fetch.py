"""Downloads and checksums. A download is checked before it gets its final name; archives are read member by member."""

from __future__ import annotations

import hashlib
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from rosepo_bench.base import progress
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import digest
from rosepo_bench.base.store import atomic_folder, read_json, write_json
from rosepo_bench.data.types import RawFile

_looking: ContextVar[bool] = ContextVar("looking", default=False)
TIMEOUT_S = 30
PIP_TIMEOUT_S = 300
MOST_MEMBERS = 10_000  # of an archive; RecBole's wheel, the largest here, has 261
MOST_BYTES = 8 << 30  # that an archive may unpack to; MovieLens-32M takes 0.9 GB


class FetchError(UserError):
    """A location did not give the published file: it cannot be reached, or sent something else (a login page, say). The
    next location may be tried, and the final error names every failure."""


class NotFetchedError(UserError):
    """The files would be fetched or unpacked, but nothing may be written now."""


@contextmanager
def looking() -> Iterator[None]:
    """Within, nothing is written: no archive is downloaded or unpacked (NotFetchedError), and no checksum recorded."""
    before = _looking.set(True)
    try:
        yield
    finally:
        _looking.reset(before)


@dataclass(frozen=True)
class Archive:
    """A zip (or wheel) that holds the raw files. ``checksum`` is ``md5:…`` or ``sha256:…``, empty where
    nobody publishes one; ``members`` maps the files to extract to their names here."""

    how: Literal["http", "pip"]
    where: str = field(metadata={"help": "URL, or a requirement such as name==1.2"})
    file: str
    checksum: str
    members: Mapping[str, str]


def download(archive: Archive, folder: Path) -> Path:
    """``folder/archive.file``, downloaded unless it is there. UserError: no network, or not the published
    checksum."""
    target = folder / archive.file
    if target.is_file():
        return target
    if _looking.get():
        raise NotFetchedError(f"{archive.where}: not fetched yet")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); give another --cache-dir") from None
    progress.say(f"fetching {archive.file} ({archive.where})")
    if archive.how == "pip":
        _pip(archive, target)
    else:
        _http(archive, target)
    return target


def unpack(archive: Archive, path: Path, folder: Path) -> None:
    """Checks ``path`` and extracts ``archive.members``, and nothing else, into ``folder``, which is complete or absent.
    An archive is refused that has a link or a member that points outside of its folder, or that is too large."""
    if _looking.get():
        raise NotFetchedError(f"{path}: not unpacked yet")
    verify(path, archive.checksum)
    try:
        with zipfile.ZipFile(path) as content:
            members = _members(path, archive, content)
            with atomic_folder(folder) as new:
                for name, member in members.items():
                    # No more than the size that was checked: zipfile stops there.
                    with content.open(member) as source, (new / name).open("xb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
    except NotImplementedError as error:
        raise UserError(f"{path}: cannot be unpacked ({error}); fetch the owner's archive") from None
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a complete zip archive ({error}); delete it and fetch it again") from None


def verify(path: Path, checksum: str) -> None:
    """Compares a file with its published checksum, ``md5:…`` or ``sha256:…``; an empty one is not checked."""
    if not checksum:
        return
    kind, _, expected = checksum.partition(":")
    found = file_hash(path, kind)
    if found != expected:
        raise UserError(
            f"{path}: {kind} is {found}, published is {expected}; the file is truncated or another release: "
            "delete it and fetch it again"
        )


def file_hash(path: Path, kind: str = "sha256") -> str:
    """Hex digest of a file's bytes."""
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def fingerprint(path: Path, book: Path, *, fixed: bool = False, published: str = "") -> RawFile:
    """Size and sha256 of a raw file, recorded in ``book`` (checksums.json). A file whose size and modification time
    have not changed is not hashed again. A changed file is read anew and said to be so.

    UserError: a ``fixed`` one, which was fetched and nobody may edit, has changed; the sha256 is not the ``published``
    one."""
    status = path.stat()
    entries = _entries(book)
    key = str(path.resolve())
    seen = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    known = entries.get(key, {}).get("sha256")
    believed = known is not None and entries[key] == _entry(key, seen, known)
    found = str(known) if believed else file_hash(path)
    if published and found != published:
        raise UserError(
            f"{path}: sha256 is {found}, published is {published}: the file was changed; fetch it again, or use source "
            "`atomic` for data of your own"
        )
    if believed:
        return RawFile(path.name, status.st_size, found)
    if known is None and not _looking.get():
        progress.say(f"{path}: first use, sha256 {found} recorded in {book}")
    elif known is not None and known != found:
        if fixed:
            raise UserError(
                f"{path}: sha256 is {found}, when it was fetched it was {known}; put the first file back, "
                f"or, if the change is intended, remove its entry from {book} (results before and after are not "
                "comparable)"
            )
        progress.say(f"{path}: changed since it was last used, sha256 {found} recorded in {book}")
    if not _looking.get():
        write_json(book, {**entries, key: _entry(key, seen, found)})
    return RawFile(path.name, status.st_size, found)


def _entry(key: str, seen: Mapping[str, int], sha256: str) -> dict[str, Any]:
    """What the book holds of a file. ``seal``: an entry that was changed is not believed, and the file hashed again."""
    return {**seen, "sha256": sha256, "seal": digest(key, dict(seen), sha256)}


def _entries(book: Path) -> dict[str, dict[str, Any]]:
    """The book's entries by path. UserError: it is no such book."""
    entries = read_json(book) if book.is_file() else {}
    if isinstance(entries, dict) and all(isinstance(entry, dict) for entry in entries.values()):
        return entries
    raise UserError(f"{book}: not the checksums of raw files; delete it, and they are recorded again")


def _members(path: Path, archive: Archive, content: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members to extract, by their names here. UserError: the archive lacks one, or is not to be unpacked."""
    found = content.infolist()
    if len(found) > MOST_MEMBERS:
        raise UserError(f"{path}: {len(found)} members, of at most {MOST_MEMBERS}; do not use this archive")
    for member in found:
        _refuse_escape(path, member.filename)
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UserError(f"{path}: member {member.filename!r} is a link; do not use this archive")
    names = Counter(member.filename for member in found)
    missing = sorted(set(archive.members) - set(names))
    if missing:
        raise UserError(f"{path}: the archive lacks {', '.join(missing)}; delete it and fetch it again")
    wanted = {archive.members[one.filename]: one for one in found if one.filename in archive.members}
    for member in wanted.values():
        if names[member.filename] > 1:
            raise UserError(f"{path}: {member.filename} is there twice; do not use this archive")
        if member.flag_bits & 1:
            raise UserError(f"{path}: {member.filename} is encrypted; fetch the owner's archive")
    size = sum(member.file_size for member in wanted.values())
    if size > MOST_BYTES:
        raise UserError(f"{path}: unpacks to {size} bytes, of at most {MOST_BYTES}; do not use this archive")
    return wanted


def _refuse_escape(path: Path, name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in name.split("/")[0]:
        raise UserError(f"{path}: member {name!r} points outside of the archive's folder; do not use this archive")


def _http(archive: Archive, target: Path) -> None:
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")  # `download` has already said what is fetched
    loader = pooch.HTTPDownloader(timeout=TIMEOUT_S)
    try:  # pooch writes to a temporary file, compares the checksum and only then renames
        pooch.retrieve(
            archive.where, archive.checksum or None, fname=target.name, path=target.parent, downloader=loader
        )
    except requests.exceptions.RequestException as error:
        raise FetchError(f"{archive.where}: cannot be fetched ({type(error).__name__})") from None
    except ValueError as error:
        raise FetchError(f"{archive.where}: not the file that was published: {error}") from None


def _pip(archive: Archive, target: Path) -> None:
    """Downloads the wheel of a package as a file: nothing of it is installed, built or run."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".pip-") as folder:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--only-binary=:all:", f"--timeout={TIMEOUT_S}", "--retries=1", f"--dest={folder}", archive.where,
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise FetchError(f"{archive.where}: pip took longer than {PIP_TIMEOUT_S} s") from None
        wheel = Path(folder) / archive.file
        if done.returncode or not wheel.is_file():
            reason = (done.stderr.strip().splitlines() or ["no wheel of that name"])[-1]
            raise FetchError(f"{archive.where}: pip cannot fetch it: {reason}")
        verify(wheel, archive.checksum)
        wheel.replace(target)
