"""Which data set the files of a data folder are: nothing that was given is passed over in silence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rosepo_bench import cli
from rosepo_bench.base import progress
from rosepo_bench.base.config import DatasetConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.data import catalog

GOODREADS = ("goodreads_interactions_poetry.json.gz", "goodreads_books_poetry.json.gz")
STEAM = ("steam_reviews.json.gz", "steam_games.json.gz")


def put(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def found(name: str, data_dir: Path, synthetic: str = "auto") -> list[str]:
    """The files that a data set is read from, relative to the data folder; none: the replica."""
    config = DatasetConfig.model_validate({"source": name, "synthetic": synthetic})
    resolved = catalog.resolve(name, config, data_dir, data_dir / ".cache", offline=True)
    return [str(path.relative_to(data_dir)) for _, path in resolved.paths]


@pytest.mark.parametrize("folder", ["goodreads", ""])
def test_files_in_their_folder_or_right_in_the_data_folder_are_found(tmp_path: Path, folder: str) -> None:
    put(tmp_path / folder, *GOODREADS)
    assert found("goodreads", tmp_path) == [str(Path(folder) / name) for name in GOODREADS]


def test_names_that_several_data_sets_share_count_only_in_a_folder_that_says_which(tmp_path: Path) -> None:
    for folder in ("ml-20m", "mine"):
        put(tmp_path / folder, "ratings.csv", "movies.csv")
    assert found("ml-20m", tmp_path / "ml-20m") == ["ratings.csv", "movies.csv"]
    with pytest.raises(
        UserError, match=r"nothing in --data-dir .*mine is recognised; there: movies\.csv, ratings\.csv\."
    ):
        found("ml-20m", tmp_path / "mine")


@pytest.mark.parametrize(
    "files",
    [
        [],
        ["goodreads/goodreads_interactions.csv", "goodreads/goodreads_books.csv"],
        ["poetry/" + name for name in GOODREADS],
    ],
    ids=["empty", "csv", "another folder"],
)
@pytest.mark.parametrize("verb", [["data", "describe", "goodreads"], ["plan", "--all"], ["run", "--all"]])
def test_a_data_folder_in_which_nothing_is_recognised_is_refused_by_every_verb(
    tmp_path: Path, files: list[str], verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    put(data)
    for file in files:
        put((data / file).parent, Path(file).name)
    options = ["--data-dir", str(data), "--cache-dir", str(tmp_path / "cache"), "--offline"]
    options += [] if verb[0] == "data" else ["--datasets", "goodreads", "--out", str(tmp_path / "out")]
    assert cli.main([*verb, *options]) == 2
    error = capsys.readouterr().err
    assert f"goodreads: nothing in --data-dir {data} is recognised" in error
    assert all(file in error for file in files)
    for part in ("goodreads_interactions*.json.gz", "goodreads_books*.json.gz", str(data / "goodreads"), "always"):
        assert part in error


def test_beside_other_data_sets_a_replica_stands_in_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "steam", "reviews.csv")  # which is steam-australian, not the dump
    put(tmp_path / "goodreads", "titles.csv")
    with progress.shown():
        assert found("goodreads", tmp_path) == []
        assert found("steam", tmp_path) == []
    said = capsys.readouterr().out
    for name in ("goodreads", "steam"):
        assert (
            f"{name}: --data-dir {tmp_path} holds steam-australian and no {name}: a synthetic replica stands in" in said
        )
    with pytest.raises(UserError, match="goodreads: not found"):
        found("goodreads", tmp_path, "never")


@pytest.mark.parametrize(
    "file", ["books/goodreads_books_poetry.json.gz", "goodreads/goodreads_interactions.csv", "goodreads_books.json.bz2"]
)
def test_no_replica_hides_files_of_another_place_or_ending(tmp_path: Path, file: str) -> None:
    put(tmp_path / "steam", *STEAM)
    put((tmp_path / file).parent, Path(file).name)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / file} is not read: not the name or the place")):
        found("goodreads", tmp_path)
    assert found("goodreads", tmp_path, "always") == []


def test_files_of_another_data_set_in_a_shared_folder_are_no_half_of_this_one(tmp_path: Path) -> None:
    put(tmp_path / "steam", *STEAM)
    with pytest.raises(UserError, match="steam-australian: not found"):
        found("steam-australian", tmp_path)
    put(tmp_path / "steam", "reviews.csv")
    assert found("steam", tmp_path) == [f"steam/{name}" for name in STEAM]
    assert found("steam-australian", tmp_path) == ["steam/reviews.csv"]


def test_a_given_archive_is_recognised(tmp_path: Path) -> None:
    put(tmp_path, "ml-1m.zip")
    assert found("goodreads", tmp_path) == []
    with pytest.raises(UserError, match=r"ml-1m\.zip: md5 is .*, published is"):
        found("ml-1m", tmp_path)
