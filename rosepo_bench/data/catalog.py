"""Finds the files of a data set, or the replica that stands in for it, and prepares a Dataset."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from rosepo_bench.base import progress
from rosepo_bench.base.config import DatasetConfig
from rosepo_bench.base.errors import UserError, nearest
from rosepo_bench.base.seeds import digest
from rosepo_bench.data import fetch, finding, sequences
from rosepo_bench.data.finding import Found, Place
from rosepo_bench.data.readers import atomic
from rosepo_bench.data.sources import SOURCES, Layout, SourceSpec
from rosepo_bench.data.titles import first_of_title
from rosepo_bench.data.types import Dataset, RawFile, Source

__all__ = ["SOURCES", "Resolved", "load", "resolve"]


@dataclass(frozen=True)
class Resolved:
    """Which files (or which replica) a data set will be read from; nothing is parsed yet."""

    spec: SourceSpec
    kind: Literal["real", "synthetic"]
    layout: Layout | None = None
    paths: tuple[tuple[str, Path], ...] = ()
    files: tuple[RawFile, ...] = ()
    name: str = ""
    replica: tuple[int, int] = (0, 0)

    def key(self) -> str:
        """Hash of the content that will be read, whatever its path."""
        return digest(self.name, self.kind, [[file.name, file.sha256] for file in self.files], list(self.replica))


def resolve(
    name: str, config: DatasetConfig, data_dir: Path | None, cache_dir: Path, offline: bool = False
) -> Resolved:
    """Finds the files of source ``name``: at ``config.path``, else in ``data_dir``, else in ``cache_dir``; else a
    replica if there is one and ``config.synthetic`` allows it, which is said where ``data_dir`` holds other data sets;
    else by download.

    UserError: nothing found, or nothing recognised in ``data_dir`` (says which files to put where), or a fetched file
    has changed."""
    if name not in SOURCES:
        raise UserError(f"unknown data set {name!r}; {nearest(name, SOURCES)}")
    spec = SOURCES[name]
    replica = Resolved(spec, "synthetic", name=name, replica=(config.replica_users, config.seed))
    if config.synthetic == "always":
        if not spec.replica:
            raise UserError(f"{name}: there is no synthetic replica of it (only of steam and goodreads)")
        return replica
    _refuse_odd(name, config.path)
    if name == "atomic":
        return _resolve_atomic(spec, config, cache_dir)
    looked, found = _found(spec, config.path, data_dir, cache_dir)
    if found is None and config.path:
        raise UserError(
            finding.wanted(spec, looked, f"not found, and `path` was given; {finding.lying(Path(config.path))}")
        )
    if found is None and spec.replica and config.synthetic == "auto":
        if data_dir:
            held = ", ".join(finding.recognised(data_dir))
            progress.say(f"{name}: --data-dir {data_dir} holds {held} and no {name}: a synthetic replica stands in")
        return replica
    if found is None:
        found = _fetched(spec, looked, cache_dir, offline)
    return _real(spec, name, *found, cache_dir)


def _refuse_odd(name: str, path: str) -> None:
    """UserError: the system cannot have a file of that name."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return  # what is looked for there has an ending, or the error says what is lacking
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{name}: path {path[:60]!r} cannot be looked into ({why}); give another") from None


def load(resolved: Resolved, config: DatasetConfig) -> Dataset:
    """Parses and prepares. UserError: a broken file, or no user left after filtering."""
    spec = resolved.spec
    if resolved.kind == "synthetic":
        from rosepo_bench.data.synthetic import replica as synthetic

        assert spec.replica is not None, "only sources with a replica resolve to one"
        users, seed = resolved.replica
        raw = synthetic.generate(spec.replica, users, seed)
    else:
        assert resolved.layout is not None, "a real source has a layout"
        source = Source(resolved.name, "real", resolved.files, spec.citation, spec.terms)
        raw = resolved.layout.reader(dict(resolved.paths), source)
        rows = len(raw.user) + sum(raw.left_out.values())
        _check_rows(spec, resolved.layout, resolved.paths[0][1], rows)
        if spec.lists_twice:
            raw = replace(raw, works=first_of_title(raw.titles))
    return sequences.prepare(raw, config.core, config.split, config.ties, config.seed)


def _check_rows(spec: SourceSpec, layout: Layout, path: Path, rows: int) -> None:
    """UserError: not the published number of interactions, or that of another data set with the same files."""
    counts = {one.name: one.rows for one in SOURCES.values() if one.rows and layout in one.layouts}
    others = {name: count for name, count in counts.items() if name != spec.name}
    same = [name for name, count in others.items() if count == rows]
    if same:
        raise UserError(f"{path}: {rows} interactions: this is {same[0]}, not {spec.name}; use source {same[0]}")
    if spec.rows and rows != spec.rows:
        like = "".join(f", {name} {count}" for name, count in others.items())
        raise UserError(
            f"{path}: {rows} interactions, {spec.name} has {spec.rows}{like}: truncated, or not that release; "
            "fetch it again, or use source `atomic` for a part of it"
        )


def _real(spec: SourceSpec, name: str, layout: Layout, paths: dict[str, Path], cache_dir: Path) -> Resolved:
    ours, book = cache_dir.resolve(), cache_dir / "checksums.json"

    def file(path: Path) -> RawFile:
        fixed = bool(spec.archives) and path.resolve().is_relative_to(ours)
        return fetch.fingerprint(path, book, fixed=fixed, published=spec.published.get(path.name, ""))

    files = tuple(file(path) for path in paths.values())
    return Resolved(spec, "real", layout, tuple(paths.items()), files, name)


def _resolve_atomic(spec: SourceSpec, config: DatasetConfig, cache_dir: Path) -> Resolved:
    if not config.path:
        raise UserError("source atomic: set `path` to DIR/NAME, with the files DIR/NAME.inter and DIR/NAME.item")
    inter, item = atomic.locate(Path(config.path))
    columns = {str(key): own for key, own in config.columns.items()}
    reader = partial(atomic.read, time_unit=config.time_unit, columns=columns)
    layout = replace(spec.layouts[0], reader=reader)
    return _real(spec, inter.stem, layout, {"ratings": inter, "items": item}, cache_dir)


def _found(spec: SourceSpec, path: str, data_dir: Path | None, cache_dir: Path) -> tuple[list[Place], Found | None]:
    """The places looked into, best first, and what lay there. A given path is the only one."""
    if path:
        only = [Place(Path(path), spec.layouts)]
        return only, finding.search(spec, only) or _unpacked(spec, [Path(path)], cache_dir)
    below = finding.places(spec, data_dir) if data_dir else []
    looked = [*below, Place(cache_dir / spec.name, spec.layouts)]
    found = finding.search(spec, below)
    if found is None and data_dir:
        finding.refuse_unrecognised(spec, data_dir, looked)
    folders = [*([data_dir] if data_dir else []), *(place.folder for place in looked), cache_dir / "archives"]
    return looked, found or finding.search(spec, looked) or _unpacked(spec, folders, cache_dir)


def _unpacked(spec: SourceSpec, folders: list[Path], cache_dir: Path) -> Found | None:
    """An archive in one of the folders, put there by hand or left by an earlier download."""
    for folder in folders:
        for archive in spec.archives:
            if (folder / archive.file).is_file():
                fetch.unpack(archive, folder / archive.file, cache_dir / spec.name)
                return finding.search(spec, [Place(cache_dir / spec.name, spec.layouts)])
    return None


def _fetched(spec: SourceSpec, looked: list[Place], cache_dir: Path, offline: bool) -> Found:
    failures = ["offline: nothing was fetched"] if offline and spec.archives else []
    for archive in () if offline else spec.archives:
        try:
            path = fetch.download(archive, cache_dir / "archives")
            fetch.unpack(archive, path, cache_dir / spec.name)
        except fetch.FetchError as error:
            progress.say(f"{error}")
            failures.append(str(error))
            continue
        found = finding.search(spec, [Place(cache_dir / spec.name, spec.layouts)])
        assert found is not None, "an archive's members make up a layout"
        return found
    raise UserError(finding.wanted(spec, looked, "; ".join(failures) or "not found"))
