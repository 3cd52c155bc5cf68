"""The data sets: content, files, origin and terms of use. Declarations only: nothing is read here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rosepo_bench.data.fetch import Archive
from rosepo_bench.data.readers import atomic, goodreads, movielens, steam
from rosepo_bench.data.types import RawInteractions, Source

Reader = Callable[[Mapping[str, Path], Source], RawInteractions]
HARPER = "Harper and Konstan: The MovieLens Datasets: History and Context. ACM TiiS 5(4), 2015"
GROUPLENS = "GroupLens: research use, cite; no commercial use and no redistribution beyond what their README allows"
UCSD = (
    "UCSD: academic use, cite, do not redistribute; never fetched automatically: take the files from the "
    "owner's page, which states the terms"
)


@dataclass(frozen=True)
class Layout:
    """One form of the raw files: for each role (``ratings``, ``items``) the file names (globs) to look for, best
    first."""

    reader: Reader
    files: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class SourceSpec:
    """A data set. ``folders`` are further names of its folder in a data directory; ``replica`` is the kind of
    synthetic replica that may stand in; ``rows`` is the published number of interactions, which reveals a file that was
    truncated at the end of a line; ``published``: sha256 of files of which there is one release, by name;
    ``lists_twice``: some items stand in the owner's list twice, with one title and two ids."""

    name: str
    what: str
    homepage: str
    citation: str
    terms: str
    layouts: tuple[Layout, ...]
    archives: tuple[Archive, ...] = ()
    folders: tuple[str, ...] = ()
    replica: Literal["steam", "goodreads"] | None = None
    rows: int = 0
    published: Mapping[str, str] = field(default_factory=dict)
    lists_twice: bool = False

    @property
    def how(self) -> str:
        """How to get the files, for `ls datasets`."""
        by_hand = f"download by hand from {self.homepage}" if self.homepage else "your own files"
        return "fetched: " + ", else ".join(archive.where for archive in self.archives) if self.archives else by_hand


def _movielens(
    release: str, checksum: str, reader: Reader, ratings: str, items: str, folder: str = ""
) -> tuple[Layout, Archive]:
    """The layout of a release, and its archive, in which the files lie in ``folder`` (default: the release's name)."""
    layout = Layout(reader, {"ratings": (ratings,), "items": (items,)})
    members = {f"{folder or f'ml-{release}'}/{name}": name for name in (ratings, items)}
    url = f"https://files.grouplens.org/datasets/movielens/ml-{release}.zip"
    return layout, Archive("http", url, f"ml-{release}.zip", checksum, members)


# The md5 sums are those that GroupLens publishes beside each archive (NAME.zip.md5); latest-small changes
# and has none.
_100K = _movielens("100k", "md5:0e33842e24a9c977be4e0107933c0723", movielens.read_100k, "u.data", "u.item")
_1M = _movielens("1m", "md5:c4d9eecfca2ab87c1945afe126590906", movielens.read_1m, "ratings.dat", "movies.dat")
_10M = _movielens(
    "10m", "md5:ce571fd55effeba0271552578f2648bd", movielens.read_1m, "ratings.dat", "movies.dat", "ml-10M100K"
)
_20M = _movielens("20m", "md5:cd245b17a1ae2cc31bb14903e1204af3", movielens.read_csv, "ratings.csv", "movies.csv")
_SMALL = _movielens("latest-small", "", movielens.read_csv, "ratings.csv", "movies.csv")
_25M = _movielens("25m", "md5:6b51fb2759a8657d3bfcbfc42b592ada", movielens.read_csv, "ratings.csv", "movies.csv")
_32M = _movielens("32m", "md5:d472be332d4daa821edc399621853b57", movielens.read_csv, "ratings.csv", "movies.csv")
_WHEEL = Archive(
    "pip",
    "recbole==1.2.1",
    "recbole-1.2.1-py3-none-any.whl",
    "sha256:9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    {f"recbole/dataset_example/ml-100k/ml-100k.{end}": f"ml-100k.{end}" for end in ("inter", "item")},
)
_ATOMIC_100K = Layout(atomic.read, {"ratings": ("ml-100k.inter",), "items": ("ml-100k.item",)})
_PAGE = "https://grouplens.org/datasets/movielens/"

_UCSD = "https://cseweb.ucsd.edu/~jmcauley/datasets"
_STEAM_DUMP = Layout(
    steam.read_dump,
    {
        "ratings": ("steam_reviews.json.gz", "steam_reviews.json"),
        "items": ("steam_games.json.gz", "steam_games.json"),
    },
)
_STEAM_AUSTRALIAN = Layout(
    steam.read_australian,
    {
        "ratings": ("australian_user_reviews.json.gz", "australian_user_reviews.json"),
        "items": _STEAM_DUMP.files["items"],
    },
)
_STEAM_TABLE = Layout(steam.read_table, {"ratings": ("reviews.csv",)})
_GOODREADS = Layout(
    goodreads.read,
    {
        "ratings": ("goodreads_interactions*.json.gz", "goodreads_interactions*.json"),
        "items": ("goodreads_books*.json.gz", "goodreads_books*.json"),
    },
)

_SPECS = (
    SourceSpec(
        name="ml-100k",
        what="100,000 ratings of 1,682 movies by 943 users, 1997-1998",
        homepage=f"{_PAGE}100k/",
        citation=HARPER,
        terms=GROUPLENS,
        layouts=(_100K[0], _ATOMIC_100K),
        archives=(_100K[1], _WHEEL),
        rows=100_000,
        published={
            "u.data": "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
            "u.item": "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701",
            "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
            "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
        },
        lists_twice=True,
    ),
    SourceSpec(
        name="ml-1m",
        what="1,000,209 ratings of 3,706 movies by 6,040 users, 2000-2003",
        homepage=f"{_PAGE}1m/",
        citation=HARPER,
        terms=GROUPLENS,
        layouts=(_1M[0],),
        archives=(_1M[1],),
        rows=1_000_209,
    ),
    SourceSpec(
        name="ml-10m",
        what="10,000,054 ratings of 10,677 movies by 69,878 users, 1995-2009",
        homepage=f"{_PAGE}10m/",
        citation=HARPER,
        terms=GROUPLENS,
        layouts=(_10M[0],),
        archives=(_10M[1],),
        folders=("ml-10M100K",),
        rows=10_000_054,
    ),
    SourceSpec(
        name="ml-20m",
        what="20,000,263 ratings of 26,744 movies by 138,493 users, 1995-2015",
        homepage=f"{_PAGE}20m/",
        citation=HARPER,
        terms=GROUPLENS,
        layouts=(_20M[0],),
        archives=(_20M[1],),
        rows=20_000_263,
    ),
    SourceSpec(
        name="ml-latest-small",
        what="about 100,000 ratings by 600-700 users; the release changes",
        homepage=f"{_PAGE}latest/",
        citation=HARPER,
        terms=GROUPLENS,
        layouts=(_SMALL[0],),
        archives=(_SMALL[1],),
        folders=("movielens",),
    ),
    SourceSpec(
        name="ml-25m",
        what="25,000,095 ratings of 59,047 movies by 162,541 users, 1995-2019",
        homepage=f"{_PAGE}25m/",
        citation=HARPER,
        terms=GROUPLENS,
        layouts=(_25M[0],),
        archives=(_25M[1],),
        rows=25_000_095,
    ),
    SourceSpec(
        name="ml-32m",
        what="32,000,204 ratings by 200,948 users, 1995-2023",
        homepage=f"{_PAGE}32m/",
        citation=HARPER,
        terms=GROUPLENS,
        layouts=(_32M[0],),
        archives=(_32M[1],),
        rows=32_000_204,
    ),
    SourceSpec(
        name="steam",
        what="Steam reviews, the full dump: 7.8 million by 2.6 million users, 2010-2018",
        homepage=f"{_UCSD}.html#steam_data",
        citation="Kang and McAuley: Self-Attentive Sequential Recommendation. ICDM 2018",
        terms=UCSD,
        layouts=(_STEAM_DUMP,),
        replica="steam",
    ),
    SourceSpec(
        name="steam-australian",
        what="reviews by Australian Steam users, 2010-2015",
        homepage=f"{_UCSD}.html#steam_data",
        citation="Pathak et al.: Generating and Personalizing Bundle Recommendations on Steam. SIGIR 2017",
        terms=UCSD,
        layouts=(_STEAM_AUSTRALIAN, _STEAM_TABLE),
        folders=("steam",),
    ),
    SourceSpec(
        name="goodreads",
        what="Goodreads shelves of one genre, or all",
        homepage=f"{_UCSD}/goodreads.html",
        citation="Wan and McAuley: Item Recommendation on Monotonic Behavior Chains. RecSys 2018",
        terms=UCSD,
        layouts=(_GOODREADS,),
        replica="goodreads",
    ),
    SourceSpec(
        name="atomic",
        what="any data set as RecBole atomic files with timestamps and titles, at `path`",
        homepage="",
        citation="",
        terms="those of your data",
        layouts=(Layout(atomic.read, {"ratings": ("*.inter",), "items": ("*.item",)}),),
    ),
)
SOURCES: dict[str, SourceSpec] = {spec.name: spec for spec in _SPECS}
