"""Files that are complete or absent: atomic writes.

Every write goes to a temporary file in the same folder, is synced and then renamed, so that a kill or a full disk
leaves the old content or none. A writer holds a lock on its temporary; the next writer removes temporaries that nobody
has locked. No write follows a link that stands at its place.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import io
import json
import math
import os
import secrets
import shutil
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from rosepo_bench.base.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_FILE = {errno.EISDIR: "a folder", errno.ELOOP: "a link", errno.ENXIO: "a pipe or a device"}
_DEEPEST = 64  # levels of a JSON file: what walks through it later calls itself at each
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class DamagedError(UserError):
    """A file is missing, or not what was written: whoever can makes it again."""


def write_bytes(path: Path, content: bytes) -> None:
    """Writes ``content`` atomically. UserError: disk full, permission denied."""
    with _replacing(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Writes UTF-8 text atomically; what is left of undecodable bytes in it, such as a path's, as ``\\udc80``."""
    write_bytes(path, content.encode(errors="backslashreplace"))


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


def read_bytes(path: Path) -> bytes:
    """A file's content. UserError: it is missing, or no file."""
    try:
        with explained(path), os.fdopen(plain_file(path, os.O_RDONLY), "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise DamagedError(f"{path}: no such file; run again to make it") from None


def read_json(path: Path) -> Any:
    """The content of a JSON file. UserError names a missing or broken file."""
    content = read_bytes(path)
    try:
        value = json.loads(content.decode(), parse_constant=_no_number)
        if not _shallow(value, _DEEPEST):
            raise ValueError(f"more than {_DEEPEST} levels deep")
    except (ValueError, RecursionError) as error:  # not JSON, or not UTF-8
        raise DamagedError(f"{path}: not valid JSON ({error}); delete it and run again") from error
    return value


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _shallow(value: Any, levels: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_shallow(part, levels - 1) for part in parts if isinstance(part, dict | list))


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a .npz file, never unpickled. UserError names a missing or broken file."""
    return arrays_of(read_bytes(path), path)


def arrays_of(content: bytes, path: Path) -> dict[str, np.ndarray]:
    """The same of a file that has been read."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            _refuse_inflated(arrays.zip, len(content))
            return {name: arrays[name] for name in arrays.files}
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make zipfile and numpy fail in any way
        raise DamagedError(f"{path}: not a readable .npz file ({error}); delete it and run again") from error


def _refuse_inflated(archive: zipfile.ZipFile, size: int) -> None:
    """ValueError: a member that is no array, or that asks for more memory than the file of ``size`` bytes holds."""
    for info in archive.infolist():
        with archive.open(info) as member:
            shape, _, dtype = _HEADERS[np.lib.format.read_magic(member)](member)
        if not info.file_size >= math.prod(shape) * dtype.itemsize <= size >= info.file_size:
            raise ValueError(f"{info.filename} is larger than its file")


def there(path: Path) -> bool:
    """Whether anything stands at ``path``, a link that leads nowhere too. UserError: it cannot be looked at, or a file
    stands where one of its folders is needed."""
    try:
        with explained(path):
            os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def folders(path: Path) -> list[Path]:
    """The folders in a folder, by name; none where it is missing. UserError: it is a file, or cannot be read."""
    try:
        with explained(path):
            return sorted(one for one in path.iterdir() if one.is_dir())
    except FileNotFoundError:
        return []


def remove(path: Path) -> None:
    """Removes what stands at ``path``, if anything does: a file, a folder with all that is in it; of a link only the
    link."""
    with explained(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


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
            if os.path.lexists(path):
                path.rename(workshop / "old")
            new.rename(path)
            _sync(path.parent)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


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
        where = error.filename2 or error.filename or path
        if error.errno in _FULL:
            raise UserError(
                f"disk full while writing {where}; free some space or give another folder. "
                "Finished results are intact: run the same command again to continue"
            ) from error
        if error.errno in _DENIED:
            raise UserError(f"{where}: {error.strerror}; change its permissions or give another folder") from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            stands = next(one for one in (Path(where), *Path(where).parents) if os.path.lexists(one))
            raise UserError(f"{stands}: a file stands where a folder is needed; give another folder") from error
        if error.errno in _NO_FILE:
            raise DamagedError(f"{where}: {_NO_FILE[error.errno]} stands where a file is needed; remove it") from error
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{str(where)[:200]}…: the name is too long; give a shorter one") from error
        if error.errno == errno.ENOLCK:
            raise UserError(f"{where}: this file system cannot lock files; give another folder") from error
        raise


def plain_file(path: Path, flags: int) -> int:
    """Opens the file at ``path`` and returns its descriptor. OSError: it is missing or no file; a pipe is not waited
    for. With ``O_NOFOLLOW`` among the flags a link is no file either."""
    handle = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return handle
    os.close(handle)
    raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.ENXIO, "no file", str(path))


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
        lock = mark.open("xb")  # anew: where a link stands it fails
        with contextlib.suppress(OSError):  # a file system without locks: leftovers are then not removed
            fcntl.flock(lock, fcntl.LOCK_EX)
        if mark.exists():
            return temporary, lock
        lock.close()  # another writer swept it before it was locked


def _sweep(parent: Path, prefix: str) -> None:
    """Removes the temporaries whose writer has ended: nobody holds their lock."""
    for leftover in parent.glob(glob.escape(prefix) + "*"):
        folder = leftover.is_dir()
        mark = leftover / ".lock" if folder else leftover
        with contextlib.suppress(OSError), os.fdopen(plain_file(mark, os.O_RDWR | os.O_NOFOLLOW), "rb") as lock:
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
