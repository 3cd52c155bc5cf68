"""``data audit``: attacks on a candidate file that look at no history."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosepo_bench.base.errors import UserError
from rosepo_bench.commands.selection import add_profile, places

if TYPE_CHECKING:
    from rosepo_bench.evaluation.audit.table import Table

FLAGGED = 3


def add(actions: Any) -> argparse.ArgumentParser:
    """The action and its options."""
    action: argparse.ArgumentParser = actions.add_parser(
        "audit",
        help="attack candidate lists without their histories",
        description="Exit status: 0 clean, 3 flagged, 2 unusable input.",
    )
    action.add_argument("name", metavar="NAME|FILE", help="a data set, or a .csv, .json, .jsonl or frozen .npz file")
    for split in ("validation", "training"):
        action.add_argument(f"--{split}", type=Path, metavar="FILE", help=f"the {split} rows that belong to FILE")
    action.add_argument("--items", type=Path, metavar="FILE", help="a .csv of FILE's items: item,title")
    action.add_argument(
        "--negatives-of-row",
        action="store_true",
        help="each row's negatives were chosen for it (hard ones): hold HR@1 to chance + 0.05 instead of redraws",
    )
    for kind in ("html", "json"):
        action.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"write the audit as {kind.upper()} too")
    add_profile(action)
    return action


def run(given: argparse.Namespace) -> int:
    """Prints the audit; 3 where it is flagged."""
    from rosepo_bench.base import store
    from rosepo_bench.evaluation.audit import text
    from rosepo_bench.evaluation.audit.audit import audit

    found = audit(_table(given), negatives_of_row=given.negatives_of_row)
    print(text.plain(found), end="")
    if given.html is not None:
        store.write_text(given.html, text.page(found))
    if given.json is not None:
        store.write_json(given.json, text.facts(found))
    return FLAGGED if found.flagged else 0


def _table(given: argparse.Namespace) -> Table:
    """The rows that are named, of a file or of a data set's own lists."""
    path = Path(given.name)
    belonging = [option for option in ("validation", "training", "items") if getattr(given, option) is not None]
    if not path.is_file() and path.suffix not in (".csv", ".json", ".jsonl", ".npz"):
        if belonging:
            raise UserError(f"--{belonging[0]} belongs to a candidate file, and there is no file {given.name}")
        return _ours(given)
    if path.suffix == ".npz":
        from rosepo_bench.data import candidates
        from rosepo_bench.evaluation.audit import ours

        if belonging:
            raise UserError(f"{path}: frozen lists hold numbers of items alone; leave out --{belonging[0]}")
        return ours.untold(candidates.thaw(path), given.name)
    return _theirs(given, path)


def _theirs(given: argparse.Namespace, path: Path) -> Table:
    from rosepo_bench.evaluation.audit import readers
    from rosepo_bench.evaluation.audit.table import Table

    found = readers.read(path)
    if len(found) > 1 and "test" not in found:
        raise UserError(
            f"{path}: no row has the split test, only {', '.join(sorted(found))}: name what is audited test"
        )
    audited = "test" if "test" in found else next(iter(found))
    splits = {given.name: found.pop(audited), **found}
    for name in ("validation", "training"):
        if (other := getattr(given, name)) is not None:
            rows = readers.read(other, lists=False).values()
            splits[name] = splits.get(name, []) + [row for part in rows for row in part]
    titles = None if given.items is None else readers.titles(given.items)
    return Table.of(splits, titles)


def _ours(given: argparse.Namespace) -> Table:
    from dataclasses import replace

    from rosepo_bench.base import progress
    from rosepo_bench.data import candidates, catalog, sequences
    from rosepo_bench.evaluation.audit import ours
    from rosepo_bench.runs.plan import resolved as resolve

    settings = given.settings_of(given)
    with progress.shown():
        resolved = resolve(given.name, settings, places(given, Path()))
        dataset = replace(catalog.load(resolved, settings), label=given.name)
    split = sequences.split(dataset, settings.split)
    size, seed = settings.candidates, settings.seed
    test = candidates.draw(dataset, split, "test", seed=seed, size=size, users=settings.users)
    return ours.table(
        dataset, split, test, validation=candidates.draw(dataset, split, "validation", seed=seed, size=size)
    )
