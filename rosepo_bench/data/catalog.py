"""Finds the files of a data set, or the replica that stands in for it, and prepares a Dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rosepo_bench.base import progress
from rosepo_bench.base.config import DatasetConfig
from rosepo_bench.base.errors import UserError, nearest
from rosepo_bench.base.seeds import digest
from rosepo_bench.data import fetch, sequences
from rosepo_bench.data.readers import atomic
from rosepo_bench.data.sources import SOURCES, Layout, SourceSpec
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
    replica if there is one and ``config.synthetic`` allows it; else by download.

    UserError: nothing found (says which files to put where), or a file has changed."""
    if name not in SOURCES:
        raise UserError(f"unknown data set {name!r}; {nearest(name, SOURCES)}")
    spec = SOURCES[name]
    replica = Resolved(spec, "synthetic", name=name, replica=(config.replica_users, config.seed))
    if config.synthetic == "always":
        if not spec.replica:
            raise UserError(f"{name}: there is no synthetic replica of it (only of steam and goodreads)")
        return replica
    if name == "atomic":
        return _resolve_atomic(spec, config.path, cache_dir)
    places = _places(spec, config.path, data_dir, cache_dir)
    found = _search(spec, places) or _unpacked(spec, places, cache_dir)
    if found is None and config.path:
        raise UserError(_wanted(spec, places, "not found, and `path` was given for them"))
    if found is None and spec.replica and config.synthetic == "auto":
        return replica
    if found is None:
        found = _fetched(spec, places, cache_dir, offline)
    return _real(spec, name, *found, cache_dir)


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
        if spec.rows and len(raw.user) != spec.rows:
            raise UserError(
                f"{resolved.paths[0][1]}: {len(raw.user)} interactions, {spec.name} has {spec.rows}: "
                "truncated, or not that release; fetch it again, or use source `atomic` for a part of it"
            )
    return sequences.prepare(raw, config.core, config.split)


Found = tuple[Layout, dict[str, Path]]


def _real(spec: SourceSpec, name: str, layout: Layout, paths: dict[str, Path], cache_dir: Path) -> Resolved:
    files = tuple(fetch.fingerprint(path, cache_dir / "checksums.json") for path in paths.values())
    return Resolved(spec, "real", layout, tuple(paths.items()), files, name)


def _resolve_atomic(spec: SourceSpec, path: str, cache_dir: Path) -> Resolved:
    if not path:
        raise UserError("source atomic: set `path` to DIR/NAME, with the files DIR/NAME.inter and DIR/NAME.item")
    inter, item = atomic.locate(Path(path))
    return _real(spec, inter.stem, spec.layouts[0], {"ratings": inter, "items": item}, cache_dir)


def _places(spec: SourceSpec, path: str, data_dir: Path | None, cache_dir: Path) -> list[Path]:
    """Folders to look in, best first; a given path is the only one."""
    if path:
        return [Path(path)]
    below = [data_dir / folder for folder in (spec.name, *spec.folders)] if data_dir else []
    return [*below, cache_dir / spec.name]


def _search(spec: SourceSpec, places: list[Path]) -> Found | None:
    for place in places:
        for layout in spec.layouts:
            matches = {role: _match(place, names) for role, names in layout.files.items()}
            paths = {role: path for role, path in matches.items() if path is not None}
            if len(paths) == len(matches):
                return layout, paths
            if paths:  # an incomplete data set is a mistake, which another source would hide
                lacking = " and ".join(layout.files[role][0] for role in matches if role not in paths)
                there = ", ".join(str(path) for path in paths.values())
                raise UserError(f"{spec.name}: found {there}, but not {lacking} beside it; put it in {place}")
    return None


def _match(place: Path, names: tuple[str, ...]) -> Path | None:
    for name in names:
        matches = sorted(path for path in place.glob(name) if path.is_file()) if place.is_dir() else []
        if len(matches) > 1:
            raise UserError(
                f"{place}: {', '.join(path.name for path in matches)} all match {name}; leave one there, "
                "or give each a folder"
            )
        if matches:
            return matches[0]
    return None


def _unpacked(spec: SourceSpec, places: list[Path], cache_dir: Path) -> Found | None:
    """An archive in one of the places, put there by hand or left by an earlier download."""
    for place in (*places, cache_dir / "archives"):
        for archive in spec.archives:
            if (place / archive.file).is_file():
                fetch.unpack(archive, place / archive.file, cache_dir / spec.name)
                return _search(spec, [cache_dir / spec.name])
    return None


def _fetched(spec: SourceSpec, places: list[Path], cache_dir: Path, offline: bool) -> Found:
    failures = ["offline: nothing was fetched"] if offline and spec.archives else []
    for archive in () if offline else spec.archives:
        try:
            path = fetch.download(archive, cache_dir / "archives")
            fetch.unpack(archive, path, cache_dir / spec.name)
        except fetch.FetchError as error:
            progress.say(f"{error}")
            failures.append(str(error))
            continue
        found = _search(spec, [cache_dir / spec.name])
        assert found is not None, "an archive's members make up a layout"
        return found
    raise UserError(_wanted(spec, places, "; ".join(failures) or "not found"))


def _wanted(spec: SourceSpec, places: list[Path], why: str) -> str:
    """An error's text: which files to put where."""
    shapes = [" and ".join(" or ".join(names) for names in layout.files.values()) for layout in spec.layouts]
    shapes += [archive.file for archive in spec.archives]
    where = " or ".join(str(place) for place in places)
    page = f" from {spec.homepage}" if spec.homepage else ""
    return f"{spec.name}: {why}. Put {'; or '.join(shapes)}{page} into {where}. Terms: {spec.terms}"
