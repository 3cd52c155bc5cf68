"""Where the files of a source are looked for, and what stands in when there are none."""

from __future__ import annotations

import hashlib
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rosepo_bench.base.config import DatasetConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.data import catalog, fetch, sources

RATINGS = "userId,movieId,rating,timestamp\n" + "".join(
    f"{user},{movie},3,{1260759144 + user + movie}\n" for user in (1, 2, 3) for movie in (1, 2, 3, 4)
)
MOVIES = "movieId,title,genres\n" + "".join(f"{movie},Movie {movie} (1995),Drama\n" for movie in (1, 2, 3, 4))


def config(source: str, **options: Any) -> DatasetConfig:
    return DatasetConfig(source=source, **options)


def write_csv(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "ratings.csv").write_text(RATINGS)
    (folder / "movies.csv").write_text(MOVIES)
    return folder


def offline(name: str, settings: DatasetConfig, data: Path | None, cache: Path) -> catalog.Resolved:
    return catalog.resolve(name, settings, data, cache, offline=True)


@pytest.mark.parametrize("folder", ["ml-latest-small", "movielens"])
def test_files_are_found_under_a_data_folder(tmp_path: Path, folder: str) -> None:
    write_csv(tmp_path / "data" / folder)
    settings = config("ml-latest-small", core=2)
    resolved = offline("ml-latest-small", settings, tmp_path / "data", tmp_path / "cache")
    dataset = catalog.load(resolved, settings)
    assert (resolved.kind, dataset.users, dataset.items) == ("real", 3, 4)
    assert dataset.source.files[0].sha256 == hashlib.sha256(RATINGS.encode()).hexdigest()
    assert "GroupLens" in dataset.source.terms
    assert dataset.source.citation


def test_the_key_follows_content_and_not_place(tmp_path: Path) -> None:
    settings = config("ml-latest-small")
    keys = []
    for name in ("one", "two", "three"):
        folder = write_csv(tmp_path / name)
        if name == "three":
            (folder / "ratings.csv").write_text(RATINGS + "3,1,3,1260759999\n")
        given = settings.model_copy(update={"path": str(folder)})
        keys.append(offline("ml-latest-small", given, None, tmp_path / "cache").key())
    assert keys[0] == keys[1] != keys[2]


def test_missing_files_are_asked_for_by_name_place_and_terms(tmp_path: Path) -> None:
    write_csv(tmp_path / "data" / "movielens")
    with pytest.raises(UserError) as refused:
        offline("ml-1m", config("ml-1m"), tmp_path / "data", tmp_path / "cache")
    for part in (
        "ratings.dat and movies.dat",
        "ml-1m.zip",
        str(tmp_path / "data" / "ml-1m"),
        "offline",
        "Terms",
    ):
        assert part in str(refused.value)


def test_every_failed_fetch_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(archive: fetch.Archive, folder: Path) -> Path:
        raise fetch.FetchError(f"no route to {archive.where}")

    monkeypatch.setattr(fetch, "download", fail)
    with pytest.raises(UserError, match=r"no route to https.*ml-100k\.zip; no route to recbole==1\.2\.1"):
        catalog.resolve("ml-100k", config("ml-100k"), None, tmp_path)


def test_a_given_path_is_the_only_place(tmp_path: Path) -> None:
    write_csv(tmp_path / "data" / "ml-latest-small")
    settings = config("ml-latest-small", path=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=re.escape(f"into {tmp_path / 'nowhere'}. Terms")):
        catalog.resolve("ml-latest-small", settings, tmp_path / "data", tmp_path / "cache")


def test_an_archive_put_by_hand_is_checked_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "data" / "ml-25m"
    place.mkdir(parents=True)
    path = place / "ml-25m.zip"
    with zipfile.ZipFile(path, "w") as content:
        content.writestr("ml-25m/ratings.csv", RATINGS)
        content.writestr("ml-25m/movies.csv", MOVIES)
    with pytest.raises(UserError, match="published is 6b51fb2759a8657d3bfcbfc42b592ada"):
        offline("ml-25m", config("ml-25m"), tmp_path / "data", tmp_path / "cache")
    spec = sources.SOURCES["ml-25m"]
    archive = replace(spec.archives[0], checksum="md5:" + fetch.file_hash(path, "md5"))
    monkeypatch.setitem(sources.SOURCES, "ml-25m", replace(spec, archives=(archive,), rows=12))
    resolved = offline("ml-25m", config("ml-25m"), tmp_path / "data", tmp_path / "cache")
    assert catalog.load(resolved, config("ml-25m")).users == 3
    path.unlink()  # unpacked once, used from the cache
    assert offline("ml-25m", config("ml-25m"), None, tmp_path / "cache").key() == resolved.key()


def test_a_file_cut_at_the_end_of_a_line_is_caught_by_the_published_count(tmp_path: Path) -> None:
    settings = config("ml-25m", path=str(write_csv(tmp_path / "part")))
    resolved = offline("ml-25m", settings, None, tmp_path / "cache")
    with pytest.raises(
        UserError, match=r"12 interactions, ml-25m has 25000095, ml-20m 20000263, .*: truncated, or not"
    ):
        catalog.load(resolved, settings)


@pytest.mark.parametrize("name", ["ml-25m", "ml-latest-small"])
def test_another_release_with_the_same_file_names_is_told_by_its_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sources.SOURCES, "ml-20m", replace(sources.SOURCES["ml-20m"], rows=12))
    settings = config(name, path=str(write_csv(tmp_path / name)))
    with pytest.raises(UserError, match=f"12 interactions: this is ml-20m, not {name}; use source ml-20m"):
        catalog.load(offline(name, settings, None, tmp_path / "cache"), settings)
    settings = config("ml-20m", path=str(tmp_path / name))
    assert catalog.load(offline("ml-20m", settings, None, tmp_path / "cache"), settings).users == 3


def test_movielens_10m_is_read_from_the_folder_of_its_archive_and_is_not_1m(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratings = "".join(f"{user}::{movie}::2.5::{838985046 + movie}\n" for user in (1, 2, 3) for movie in (1, 2, 3, 4))
    movies = "".join(f"{movie}::Movie {movie}: the Film (1995)::Drama\n" for movie in (1, 2, 3, 4))
    with zipfile.ZipFile(tmp_path / "ml-10m.zip", "w") as content:  # lies flat: no other archive has its name
        content.writestr("ml-10M100K/ratings.dat", ratings)
        content.writestr("ml-10M100K/movies.dat", movies)
    spec = sources.SOURCES["ml-10m"]
    archive = replace(spec.archives[0], checksum="md5:" + fetch.file_hash(tmp_path / "ml-10m.zip", "md5"))
    monkeypatch.setitem(sources.SOURCES, "ml-10m", replace(spec, archives=(archive,), rows=12))
    resolved = offline("ml-10m", config("ml-10m"), tmp_path, tmp_path / "cache")
    dataset = catalog.load(resolved, config("ml-10m"))
    assert (dataset.users, dataset.titles[0]) == (3, "Movie 1: the Film (1995)")
    settings = config("ml-1m", path=str(tmp_path / "cache" / "ml-10m"))
    with pytest.raises(UserError, match="12 interactions: this is ml-10m, not ml-1m"):
        catalog.load(offline("ml-1m", settings, None, tmp_path / "cache"), settings)


@pytest.mark.parametrize("name", ["steam", "goodreads"])
def test_a_replica_stands_in_only_where_it_may(tmp_path: Path, name: str) -> None:
    resolved = catalog.resolve(name, config(name), None, tmp_path / "cache")
    assert resolved.kind == "synthetic"
    other = catalog.resolve(name, config(name, seed=1), None, tmp_path / "cache")
    assert resolved.key() != other.key()
    with pytest.raises(UserError, match=r"not found\. Put .* from https.*never fetched automatically"):
        catalog.resolve(name, config(name, synthetic="never"), None, tmp_path / "cache")
    with pytest.raises(UserError, match="`path` was given; no file is there"):
        catalog.resolve(name, config(name, path=str(tmp_path)), None, tmp_path / "cache")


def test_a_replica_is_loaded_and_says_what_it_is(tmp_path: Path) -> None:
    settings = config("steam", synthetic="always", replica_users=100)
    resolved = catalog.resolve("steam", settings, None, tmp_path)
    dataset = catalog.load(resolved, settings)
    assert (resolved.kind, dataset.source.kind) == ("synthetic", "synthetic")
    assert 0 < dataset.users <= 100


def test_half_of_the_files_is_an_error_and_no_reason_for_a_replica(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "steam"
    folder.mkdir(parents=True)
    (folder / "steam_reviews.json.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"found .*steam_reviews\.json\.gz, but not steam_games\.json"):
        catalog.resolve("steam", config("steam"), tmp_path / "data", tmp_path / "cache")


def test_two_genres_in_one_folder_are_ambiguous(tmp_path: Path) -> None:
    for genre in ("poetry", "children"):
        (tmp_path / f"goodreads_interactions_{genre}.json.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"children.*poetry.* all match"):
        catalog.resolve("goodreads", config("goodreads", path=str(tmp_path)), None, tmp_path / "cache")


def test_always_synthetic_is_refused_without_a_replica(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no synthetic replica"):
        catalog.resolve("ml-1m", config("ml-1m", synthetic="always"), None, tmp_path)


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'goodreads'"):
        catalog.resolve("goodread", config("goodread"), None, tmp_path)


def test_a_changed_file_of_the_users_is_another_data_set(tmp_path: Path) -> None:
    settings = config("ml-latest-small", path=str(write_csv(tmp_path / "set")))
    first = offline("ml-latest-small", settings, None, tmp_path / "cache")
    (tmp_path / "set" / "movies.csv").write_text(MOVIES + "5,Movie 5 (1996),Drama\n")
    assert offline("ml-latest-small", settings, None, tmp_path / "cache").key() != first.key()


def test_a_changed_file_of_the_cache_is_refused(tmp_path: Path) -> None:
    fetched = write_csv(tmp_path / "cache" / "ml-latest-small")
    offline("ml-latest-small", config("ml-latest-small"), None, tmp_path / "cache")
    (fetched / "movies.csv").write_text(MOVIES + "5,Movie 5 (1996),Drama\n")
    with pytest.raises(UserError, match=r"movies\.csv: sha256 is .* when it was fetched"):
        offline("ml-latest-small", config("ml-latest-small"), None, tmp_path / "cache")


def test_every_source_says_what_it_is_and_on_which_terms() -> None:
    for name, spec in sources.SOURCES.items():
        assert (spec.name, bool(spec.what), bool(spec.terms), bool(spec.how)) == (name, True, True, True)
        assert name == "atomic" or (spec.citation and spec.homepage.startswith("https://"))
        assert not (spec.archives and spec.replica), "what can be fetched needs no replica"
        for archive in spec.archives:
            names = set(archive.members.values())
            assert any(names == {first for first, *_ in layout.files.values()} for layout in spec.layouts), (
                f"{archive.file} unpacks to no layout"
            )
