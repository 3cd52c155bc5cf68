"""Is the best-first top 10 of the catalogue the full ranking's, for every test user, and what does it read and take?

python tests/engine/ranking_study.py

The model is a profile's SFT model: that of --out where a run is finished there, else it is trained first.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import study
from agreement import ROUND, TIE, Agreement, compare, turns
from jaxtyping import Float64, Int

from rosepo_bench.base import progress, store
from rosepo_bench.base.errors import UserError
from rosepo_bench.data.types import Examples
from rosepo_bench.engine import environment
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.prompts.examples import example_prompts
from rosepo_bench.engine.ranking.beam import rank_beam_approximate
from rosepo_bench.engine.ranking.result import Ranking
from rosepo_bench.engine.ranking.search import rank_best_first
from rosepo_bench.engine.ranking.trie import Trie, build
from rosepo_bench.report.markdown import paragraph, percent, table
from rosepo_bench.runs.cells import Cell

K = 10
WIDTHS = (10, 20, 50)
SCORES = ("sum", "mean")


@dataclass(frozen=True)
class Beams:
    """Of n prompts and W beams: their ``widths``, ``recall`` ``[n, W]`` of the exact best K, and ``seconds``
    ``[rounds, 1 + W]`` of best-first and each beam."""

    widths: list[int]
    recall: Float64[np.ndarray, "n W"]
    seconds: Float64[np.ndarray, "rounds 1+W"]


def recall(exact: Ranking, found: Ranking) -> Float64[np.ndarray, " n"]:
    """The share of K places that ``found`` fills with titles as good as the exact K-th, ties within ``TIE`` apart
    ``[n]``."""
    return (found.scores >= exact.scores[:, -1:] - TIE).mean(axis=1)


def beams(
    model: LanguageModel,
    trie: Trie,
    prompts: Sequence[Int[np.ndarray, " _"]],
    *,
    score: str,
    batch_tokens: int,
    label: str,
) -> Beams:
    """Beam search, as wide as ``WIDTHS`` and the catalogue let it, takes turns with best-first search."""
    widths = [width for width in WIDTHS if width <= trie.items]
    found, seconds = np.empty((len(prompts), len(widths))), []
    for rows, part, turn_label in turns(prompts, label):
        clock = [time.perf_counter()]
        exact = rank_best_first(model, trie, part, k=K, score=score, batch_tokens=batch_tokens, label=turn_label)
        clock.append(time.perf_counter())
        for place, width in enumerate(widths):
            ranking = rank_beam_approximate(
                model, trie, part, k=K, width=width, score=score, batch_tokens=batch_tokens, label=turn_label
            )
            clock.append(time.perf_counter())
            found[rows, place] = recall(exact, ranking)
        seconds.append(np.diff(clock))
    return Beams(widths, found, np.array(seconds))


def some(test: Examples, users: int | None) -> Examples:
    """All test users, or ``users`` of them, spread evenly."""
    if users is None:
        return test
    if not 1 <= users <= len(test):
        raise UserError(f"--users {users}: there are {len(test)} test users; give 1 to {len(test)}")
    return test.take(np.arange(users) * len(test) // users)


def exact_row(score: str, found: Agreement) -> list[str]:
    users, milliseconds = len(found.gap), 1000 * found.seconds.sum(axis=0) / len(found.gap)
    shares = [found.share.mean(), *np.percentile(found.share, (50, 90)), found.share.max()]
    counts = [f"{int(which.sum())} of {users}" for which in (found.equal, found.same_items)]
    times = [*(f"{value:.0f}" for value in milliseconds), study.spread(found.seconds[:, 1] / found.seconds[:, 0])]
    return [score, *counts, f"{found.gap.max():.1e}", *map(percent, shares), *times]


def beam_rows(score: str, found: Beams) -> list[list[str]]:
    return [
        [
            score,
            str(width),
            f"{found.recall[:, place].mean():.3f}",
            f"{int((found.recall[:, place] == 1).sum())} of {len(found.recall)}",
            study.spread(found.seconds[:, 0] / found.seconds[:, 1 + place]),
        ]
        for place, width in enumerate(found.widths)
    ]


EXACT = ["score", "users with equal top 10", "the same items", "largest difference"]
EXACT += [f"nodes read: {name}" for name in ("mean", "median", "p90", "most")]
EXACT += ["best-first, ms a user", "full, ms a user", "full / best-first"]
BEAM = ["score", "width", "recall of the exact top 10", "users with recall 1", "best-first's time / beam's"]


def about(cell: Cell, profile: str, users: int) -> str:
    """What was run, where."""
    pipeline, record = cell.task, store.read_json(cell.folder / "record.json")
    source, hits = pipeline.data.source, record["evaluations"]["candidates-sum"]["metrics"]["hr@1"]["value"]
    return paragraph(
        f"`make ranking` ({study.machine(environment.facts())}): the {K} best titles of the whole catalogue under the",
        f"prompts of {users:,} of {len(pipeline.test):,} test users of {source.name} ({source.kind}), by best-first",
        f"search and by scoring every title, with the SFT model of {profile}, seed {pipeline.seed} (HR@1 {hits:.3f}",
        f"among {pipeline.dataset_config.candidates} candidates).",
    )


def markdown(head: str, trie: Trie, exact: list[list[str]], beam: list[list[str]]) -> str:
    """The whole text. ``exact`` and ``beam`` are the rows of the tables."""
    facts = paragraph(
        f"The trie of {trie.items:,} titles has {len(trie):,} nodes; {len(trie.inner):,} of them have children and are",
        "read by the full ranking under every prompt: the shares are of these. A title's score is the sum or the mean",
        f"of its tokens' log-probs. Equal: at each of the {K} places, the two rankings' scores, and best-first's score",
        f"of an item and its score in the full ranking, differ by less than {TIE:.0e}. The same items: also item by",
        f"item. Both take turns, {ROUND} users at a time; a ratio is its median [20th, 80th percentile] over these",
        "rounds.",
    )
    caption = paragraph(
        "Beam search is approximate: its recall is the share of its titles that score as high as the exact tenth. It",
        "takes turns with best-first search likewise.",
    )
    tables = (
        table(EXACT, exact, left=["score"], whole=True),
        table(BEAM, beam, left=["score"], whole=True),
    )
    return "\n\n".join(
        ["# Best-first search against the full ranking", head, facts, tables[0], "## Beam search", caption, tables[1]]
    )


def main(arguments: list[str] | None = None) -> int:
    parser = study.parser(__doc__, out="results/runs", into="results/engine/ranking.md")
    parser.add_argument("--users", type=int, metavar="N", help="of the test users; default: all")
    given = parser.parse_args(arguments)
    config = study.configuration(given, "sft", ["seeds=1"])
    (cell,) = study.finished(config, study.places(given, given.out))
    pipeline, language = cell.task, cell.language
    test = some(pipeline.test, given.users)
    model = language.create(pipeline.stages.get(cell.sft).weights)
    trie = build(language.prompter.titles)
    prompts = example_prompts(language.prompter, pipeline.data.sequences, test)
    exact, beam, equal = [], [], True
    with progress.shown():
        for score in SCORES:
            tokens = pipeline.config.scoring.batch_tokens
            found = compare(model, trie, prompts, k=K, score=score, batch_tokens=tokens, label=score)
            equal &= bool(found.equal.all())
            exact.append(exact_row(score, found))
            beam += beam_rows(
                score, beams(model, trie, prompts, score=score, batch_tokens=tokens, label=f"{score}, beams")
            )
    text = markdown(about(cell, study.profile(given, config), len(test)), trie, exact, beam)
    store.write_text(given.into, text + "\n")
    print(text)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(study.run(main))
