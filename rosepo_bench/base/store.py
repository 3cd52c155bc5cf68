"""Files that are complete or absent: atomic writes.

Every write goes to a temporary file in the same folder, is synced and then renamed, so that a kill or a full disk
leaves the old content or none. A writer holds a lock on its temporary; the next writer removes temporaries that nobody
has locked.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import io
import json
import os
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from rosepo_bench.base.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def write_bytes(path: Path, content: bytes) -> None:
    """Writes ``content`` atomically. UserError: disk full, permission denied."""
    with _replacing(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Writes UTF-8 text atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically, keys in the given order; numpy values become lists and numbers. ValueError: NaN."""
    try:
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    write_text(path, text + "\n")


def write_npz(path: Path, /, **arrays: np.ndarray) -> None:
    """Writes named arrays atomically (numpy's .npz); arrays of objects, which need pickle, are refused."""
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise TypeError(f"{path}: array {name!r} holds objects; only plain types are stored")
    with _replacing(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its own flag


def read_json(path: Path) -> Any:
    """The content of a JSON file. UserError names a missing or broken file."""
    content = _read(path)
    try:
        return json.loads(content)
    except ValueError as error:  # not JSON, or not UTF-8
        raise UserError(f"{path}: not valid JSON ({error}); delete it and run again") from error


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a .npz file, never unpickled. UserError names a missing or broken file."""
    content = io.BytesIO(_read(path))
    try:
        with np.load(content, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
        KeyError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise UserError(f"{path}: not a readable .npz file ({error}); delete it and run again") from error


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder that becomes ``path`` when the block succeeds and is removed when it fails.

    An existing folder at ``path`` stays until then and is replaced. What killed runs left is removed first.
    """
    with explained(path):
        workshop, lock = _temporary(path, folder=True)
    try:
        with explained(path), lock:
            new = workshop / "new"
            new.mkdir()
            yield new
            _sync_tree(new)
            if path.exists():
                path.rename(workshop / "old")
            new.rename(path)
            _sync(path.parent)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _read(path: Path) -> bytes:
    try:
        with explained(path):
            return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run again to make it") from None


def _plain(value: Any) -> Any:
    """numpy's numbers and arrays as plain JSON values."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """An open temporary that replaces ``path`` when the block succeeds."""
    with explained(path):
        temporary, file = _temporary(path, folder=False)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(path.parent)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns the OS errors that a user can fix into a UserError that says how."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        if error.errno in _FULL:
            raise UserError(
                f"disk full while writing {where}; free some space or give another folder. "
                "Finished results are intact: run the same command again to continue"
            ) from error
        if error.errno in _DENIED:
            raise UserError(f"{where}: {error.strerror}; change its permissions or give another folder") from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            raise UserError(f"{where}: a file stands where a folder is needed; give another folder") from error
        if error.errno == errno.ENOLCK:
            raise UserError(f"{where}: this file system cannot lock files; give another folder") from error
        raise


def _temporary(path: Path, folder: bool) -> tuple[Path, IO[bytes]]:
    """A new file or folder beside ``path``, and its open lock (the file, or ``.lock`` in the folder)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.tmp-"
    _sweep(path.parent, prefix)
    while True:
        temporary = path.parent / f"{prefix}{secrets.token_hex(6)}"
        if folder:
            temporary.mkdir()
        mark = temporary / ".lock" if folder else temporary
        lock = mark.open("xb")
        with contextlib.suppress(OSError):  # a file system without locks: leftovers are then not removed
            fcntl.flock(lock, fcntl.LOCK_EX)
        if mark.exists():
            return temporary, lock
        lock.close()  # another writer swept it before it was locked


def _sweep(parent: Path, prefix: str) -> None:
    """Removes the temporaries whose writer has ended: nobody holds their lock."""
    for leftover in parent.glob(glob.escape(prefix) + "*"):
        folder = leftover.is_dir()
        with contextlib.suppress(OSError), (leftover / ".lock" if folder else leftover).open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folder:
                shutil.rmtree(leftover)
            else:
                leftover.unlink()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot sync a folder
            raise
    finally:
        os.close(handle)


def _sync_tree(folder: Path) -> None:
    for entry in sorted(folder.rglob("*"), reverse=True):
        _sync(entry)
    _sync(folder)
