"""Downloads and checksums. A download is checked before it gets its final name; archives are read member by member."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from rosepo_bench.base import progress
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.store import atomic_folder, read_json, write_json
from rosepo_bench.data.types import RawFile

TIMEOUT_S = 30
PIP_TIMEOUT_S = 300


class FetchError(UserError):
    """A location did not give the published file: it cannot be reached, or sent something else (a login page, say). The
    next location may be tried, and the final error names every failure."""


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
    An archive with any member that points outside of its folder is refused."""
    verify(path, archive.checksum)
    try:
        with zipfile.ZipFile(path) as content:
            for name in content.namelist():
                _refuse_escape(path, name)
            missing = sorted(set(archive.members) - set(content.namelist()))
            if missing:
                raise UserError(f"{path}: the archive lacks {', '.join(missing)}; delete it and fetch it again")
            with atomic_folder(folder) as new:
                for member, name in archive.members.items():
                    with content.open(member) as source, (new / name).open("wb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
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


def fingerprint(path: Path, book: Path, *, fixed: bool = False) -> RawFile:
    """Size and sha256 of a raw file, recorded in ``book`` (checksums.json). A file whose size and modification time
    have not changed is not hashed again. A changed file is read anew and said to be so.

    UserError: a ``fixed`` one, which was fetched and nobody may edit, has changed."""
    status = path.stat()
    entries: dict[str, Any] = read_json(book) if book.is_file() else {}
    key = str(path.resolve())
    known = entries.get(key)
    seen = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    if known is not None and {name: known.get(name) for name in seen} == seen:
        return RawFile(path.name, status.st_size, known["sha256"])
    found = file_hash(path)
    if known is None:
        progress.say(f"{path}: first use, sha256 {found} recorded in {book}")
    elif known["sha256"] != found:
        if fixed:
            raise UserError(
                f"{path}: sha256 is {found}, when it was fetched it was {known['sha256']}; put the first file back, "
                f"or, if the change is intended, remove its entry from {book} (results before and after are not "
                "comparable)"
            )
        progress.say(f"{path}: changed since it was last used, sha256 {found} recorded in {book}")
    write_json(book, {**entries, key: {**seen, "sha256": found}})
    return RawFile(path.name, status.st_size, found)


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
