"""Facts of a prepared data set, as a dictionary and as Markdown. A replica is compared with the
real facts that it was calibrated to."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from tabulate import tabulate

from rosepo_bench.data import population
from rosepo_bench.data.synthetic.calibration import CALIBRATED, FACTS, TOLERANCE, gini
from rosepo_bench.data.types import Dataset, Split

LISTED = 10
"""As many merged items, and as many renamed ones, are printed; `describe` returns all."""
_LABELS = {
    "users": "users",
    "items": "items",
    "interactions": "interactions",
    "density": "density (interactions / users / items)",
    "history_min": "history length, shortest",
    "history_q25": "history length, lower quartile",
    "history_median": "history length, median",
    "history_mean": "history length, mean",
    "history_q75": "history length, upper quartile",
    "history_max": "history length, longest",
    "popularity_gini": "Gini of item popularity",
    "popularity_top": "most popular item, share of users",
    "tied_share": "users whose target ties in time",
    "ties": "order of a user's events of one time",
    "tied_neighbours": "neighbouring events of one time",
    "tied_ascending": "of these, ascending in the item id",
    "cloned_share": "test targets after the same two items in another user's training part",
    "copied_share": "test targets after the same five (or all) items in another's training part",
    "later_share": "training events later than the earliest test event",
    "split": "split",
    "validation_users": "users with a validation target",
    "test_users": "users with a test target",
    "left_out": "of these, without enough items for a candidate list",
    "title_characters": "title length, median characters",
    "title_words": "title length, median words",
}


def describe(dataset: Dataset, split: Split, size: int = 20) -> dict[str, Any]:
    """Facts of ``dataset`` under ``split``, with candidate lists of ``size``: numbers by name (those of the table that
    `render` prints, `population.facts` among them), ``genres`` (label: items, most frequent first), ``counts`` after
    each step of the preparation, ``merged`` (title: the owner's ids that became this item), ``renamed`` (title: the
    owner's, where several items have it), and ``comparison`` of a replica with the real facts (None for real data)."""
    lengths = np.array([len(sequence) for sequence in dataset.sequences])
    popularity = np.bincount(np.concatenate(dataset.sequences), minlength=dataset.items)
    q25, median, q75 = np.quantile(lengths, (0.25, 0.5, 0.75))
    facts: dict[str, Any] = {
        "name": dataset.name,
        "kind": dataset.source.kind,
        "users": dataset.users,
        "items": dataset.items,
        "interactions": int(lengths.sum()),
        "density": float(lengths.sum() / dataset.users / dataset.items),
        "history_min": int(lengths.min()),
        "history_q25": float(q25),
        "history_median": float(median),
        "history_mean": float(lengths.mean()),
        "history_q75": float(q75),
        "history_max": int(lengths.max()),
        "popularity_gini": gini(popularity),
        "popularity_top": float(popularity.max() / dataset.users),
        **population.facts(dataset, split, size),
        "split": split.kind,
        "validation_users": int((split.validation >= 0).sum()),
        "title_characters": float(np.median([len(title) for title in dataset.titles])),
        "title_words": float(np.median([len(title.split()) for title in dataset.titles])),
        "genres": dict(Counter(label for labels in dataset.genres for label in labels).most_common()),
        "counts": dataset.counts,
        "merged": {dataset.titles[item]: list(ids) for item, ids in dataset.merged},
        "renamed": {dataset.titles[item]: title for item, title in dataset.renamed},
    }
    facts["comparison"] = compare(dataset, facts)
    return facts


def compare(dataset: Dataset, facts: dict[str, Any]) -> dict[str, dict[str, Any]] | None:
    """A replica's ``facts`` beside the real ones: ``replica``, ``real``, ``deviation`` (relative),
    ``calibrated`` (the replica is meant to be within 10 %), ``how`` and ``source`` of the real fact. None for
    real data."""
    if dataset.source.kind != "synthetic":
        return None
    known = FACTS[dataset.source.name.removesuffix("-replica")]
    return {
        name: {
            "replica": facts[name],
            "real": fact.value,
            "deviation": facts[name] / fact.value - 1,
            "calibrated": name in CALIBRATED,
            "how": fact.how,
            "source": fact.source,
        }
        for name, fact in known.items()
    }


def render(dataset: Dataset, split: Split, size: int = 20) -> str:
    """The facts of `describe` as Markdown; the heading of a replica says *synthetic*."""
    facts = describe(dataset, split, size)
    synthetic = facts["comparison"] is not None
    parts = [f"## {dataset.full_name}" + (" (synthetic)" if synthetic else "")]
    parts += [line for line in (dataset.source.note, dataset.source.citation, dataset.source.terms) if line]
    parts.append(_table([[_LABELS[name], _number(facts[name])] for name in _LABELS], ["fact", "value"]))
    remarks = [f"- {remark}" for remark in population.remarks(facts)]
    parts += filter(None, ("\n".join(remarks), population.warning(facts)))
    if facts["counts"]:
        steps = [[step, *map(_number, left.values())] for step, left in facts["counts"].items()]
        parts.append(_table(steps, ["preparation", *next(iter(facts["counts"].values()))]))
    parts += filter(None, (_titles(facts),))
    if facts["genres"]:
        labels = [[label, _number(items)] for label, items in facts["genres"].items()]
        parts.append(_table(labels, ["genre", "items"]))
    if synthetic:
        parts.append(_comparison(facts["comparison"]))
    return "\n\n".join(parts) + "\n"


def _titles(facts: dict[str, Any]) -> str:
    """The first of the merged and of the renamed items, as a Markdown list; empty where there are none."""
    merged = [f"{title} ({', '.join(ids)})" for title, ids in facts["merged"].items()]
    renamed = [f"{own} → {title}" for title, own in facts["renamed"].items()]
    lines = (
        (f"Items that are several of the owner's, merged (with the owner's ids), {len(merged)}", merged),
        (f"Items with the title of another, named anew for the model, {len(renamed)}", renamed),
    )
    return "\n".join(f"- {what}: {_some(names)}" for what, names in lines if names)


def _some(names: list[str]) -> str:
    return "; ".join(names[:LISTED]) + f"; and {len(names) - LISTED} more" * (len(names) > LISTED)


def _comparison(rows: dict[str, dict[str, Any]]) -> str:
    body = [
        [
            _LABELS[name] + (" *" if row["calibrated"] else ""),
            _number(row["replica"]),
            _number(row["real"]),
            f"{row['deviation']:+.1%}",
            f"{row['how']}: {row['source']}",
        ]
        for name, row in rows.items()
    ]
    header = ["fact", "replica (synthetic)", "real", "deviation", "source of the real one"]
    return f"{_table(body, header)}\n\n\\* calibrated: meant to be within {TOLERANCE:.0%} of the real fact"


def _table(rows: list[list[Any]], headers: list[str]) -> str:
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def _number(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
