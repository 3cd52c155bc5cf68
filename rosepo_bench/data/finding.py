"""Where the raw files of a data set lie: the folders to look into, what is recognised there, and what is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.sources import SOURCES, Layout, SourceSpec

SHOWN = 8
Found = tuple[Layout, dict[str, Path]]


@dataclass(frozen=True)
class Place:
    """A folder, and the layouts that count there."""

    folder: Path
    layouts: tuple[Layout, ...]


def places(spec: SourceSpec, data_dir: Path) -> list[Place]:
    """Where a data set may lie in a data folder, best first: in a folder of its name; or right there, if no other data
    set has files of the same names (as ``ratings.csv``) or if the data folder itself has its name."""
    names = (spec.name, *spec.folders)
    clear = data_dir.resolve().name in names
    flat = tuple(layout for layout in spec.layouts if clear or not _namesakes(spec, layout))
    return [Place(data_dir / name, spec.layouts) for name in names] + [Place(data_dir, flat)] * bool(flat)


def search(spec: SourceSpec, where: Iterable[Place]) -> Found | None:
    """The first complete data set. UserError: one that lacks a file, which another place would hide, or two in one
    folder."""
    for place in where:
        for layout in place.layouts:
            paths = {role: _match(place.folder, names) for role, names in layout.files.items()}
            whole = {role: path for role, path in paths.items() if path is not None}
            if len(whole) == len(paths):
                return layout, whole
        _refuse_half(spec, place)
    return None


def recognised(data_dir: Path) -> dict[str, list[Path]]:
    """The files of every data set that a data folder holds, by its name."""
    found = {spec.name: _files_of(spec, data_dir) for spec in _searched()}
    return {name: paths for name, paths in found.items() if paths}


def refuse_unrecognised(spec: SourceSpec, data_dir: Path, where: Sequence[Place]) -> None:
    """UserError: nothing in the data folder is recognised, or something there looks like files of ``spec`` and was not
    found as such. A replica or a download would hide the slip."""
    known = recognised(data_dir)
    if not known:
        raise UserError(wanted(spec, where, f"nothing in --data-dir {data_dir} is recognised; {lying(data_dir)}"))
    taken = {path for paths in known.values() for path in paths}
    similar = [path for path in _listed(data_dir) if path not in taken and _similar(spec, path.name)]
    if spec.replica and similar:
        shown = ", ".join(str(path) for path in similar[:SHOWN])
        raise UserError(wanted(spec, where, f"{shown} is not read: not the name or the place of its files"))


def wanted(spec: SourceSpec, where: Iterable[Place], why: str) -> str:
    """An error's text: which files to put where."""
    shapes = [" and ".join(" or ".join(names) for names in layout.files.values()) for layout in spec.layouts]
    shapes += [archive.file for archive in spec.archives]
    folders = " or ".join(str(place.folder) for place in where)
    page = f" from {spec.homepage}" if spec.homepage else ""
    replica = ' (synthetic = "always" takes the replica instead)' if spec.replica else ""
    return f"{spec.name}: {why}. Put {'; or '.join(shapes)}{page} into {folders}{replica}. Terms: {spec.terms}"


def lying(folder: Path) -> str:
    """What a folder holds, for an error."""
    names = [str(path.relative_to(folder)) for path in _listed(folder)]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"there: {', '.join(names[:SHOWN])}{more}" if names else "no file is there"


def _searched() -> list[SourceSpec]:
    return [spec for spec in SOURCES.values() if spec.name != "atomic"]  # which has a path of its own


def _namesakes(spec: SourceSpec, layout: Layout) -> bool:
    """Whether another data set's files have the same names."""
    return any(
        set(other.files["ratings"]) & set(layout.files["ratings"])
        for one in _searched()
        for other in one.layouts
        if one.name != spec.name
    )


def _files_of(spec: SourceSpec, data_dir: Path) -> list[Path]:
    found = [path for place in places(spec, data_dir) for layout in place.layouts for path in _whole(place, layout)]
    folders = (data_dir, *(data_dir / name for name in (spec.name, *spec.folders)))
    archives = [folder / archive.file for folder in folders for archive in spec.archives]
    return found + [path for path in archives if path.is_file()]


def _whole(place: Place, layout: Layout) -> list[Path]:
    """All files of a layout, none if one is lacking."""
    found = [[path for name in names for path in _glob(place.folder, name)] for names in layout.files.values()]
    return [path for paths in found for path in paths] if all(found) else []


def _refuse_half(spec: SourceSpec, place: Place) -> None:
    others = [(one, layout) for one in _searched() if one.name != spec.name for layout in one.layouts]
    taken = {path for _, layout in others for path in _whole(place, layout)}
    for layout in place.layouts:
        paths = {role: _match(place.folder, names) for role, names in layout.files.items()}
        there = [str(path) for path in paths.values() if path is not None and path not in taken]
        if there:
            lacking = " and ".join(layout.files[role][0] for role, path in paths.items() if path is None)
            raise UserError(
                f"{spec.name}: found {', '.join(there)}, but not {lacking} beside it; put it in {place.folder}"
            )


def _match(folder: Path, names: tuple[str, ...]) -> Path | None:
    for name in names:
        matches = _glob(folder, name)
        if len(matches) > 1:
            raise UserError(
                f"{folder}: {', '.join(path.name for path in matches)} all match {name}; leave one there, "
                "or give each a folder"
            )
        if matches:
            return matches[0]
    return None


def _glob(folder: Path, name: str) -> list[Path]:
    return sorted(path for path in folder.glob(name) if path.is_file()) if folder.is_dir() else []


def _listed(folder: Path) -> list[Path]:
    """The files of a folder and of its folders, without the hidden ones."""
    found = [*_glob(folder, "[!.]*"), *_glob(folder, "[!.]*/[!.]*")]
    return sorted(found)


def _similar(spec: SourceSpec, name: str) -> bool:
    """Whether a file is named as one of the data set, whatever its ending."""
    patterns = (pattern for layout in spec.layouts for names in layout.files.values() for pattern in names)
    return any(fnmatch(name, pattern.partition(".")[0].rstrip("*") + "*") for pattern in patterns)
