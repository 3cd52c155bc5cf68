"""Plain checks of a candidate file: what is wrong in itself, whatever a guess can win by it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rosepo_bench.evaluation.audit.table import PAD, Rows, Table, repeated

Answer = tuple[tuple[int, ...], int]  # a history and its target


@dataclass(frozen=True)
class Check:
    """``count`` of ``of`` rows are as ``what`` says. ``flaw``: no honest file has such rows."""

    what: str
    count: int
    of: int
    flaw: bool = False

    @property
    def flagged(self) -> bool:
        return self.flaw and self.count > 0


def checks(table: Table) -> tuple[Check, ...]:
    """All checks of the audited rows, and of their overlap with the other splits."""
    rows, n = table.rows, len(table.rows)
    missing = int((rows.candidates != rows.target[:, None]).all(1).sum())
    other = n - int(np.bincount(rows.sizes).max())
    found = [
        Check("the target is missing in the list", missing, n, flaw=True),
        Check("an item stands in the list twice", int(repeated(rows.candidates).sum()), n, flaw=True),
        Check("the list has another length than most", other, n),
    ]
    if rows.histories:
        pairs = list(zip(rows.histories, rows.target.tolist(), strict=True))
        known = [set(history.tolist()) for history in rows.histories]
        listed = [
            set(own[own != PAD].tolist()) - {target} for own, target in zip(rows.candidates, rows.target, strict=True)
        ]
        found += [
            Check("the target is in the history", sum(target in history for history, target in pairs), n),
            Check("a negative is in the history", sum(map(bool, map(set.__and__, known, listed))), n),
            Check("history and target are those of an earlier row", n - len(set(_answers(rows))), n),
        ]
    for split in table.others:
        if rows.users and split.users:
            users = set(split.users)
            found.append(Check(f"the user is in {split.name} too", sum(user in users for user in rows.users), n))
        if rows.histories and split.histories:
            answers = set(_answers(split))
            shared = sum(answer in answers for answer in _answers(rows) if answer[0])
            found.append(Check(f"history and target are in {split.name} too", shared, n, flaw=True))
    return tuple(found)


def _answers(rows: Rows) -> list[Answer]:
    return [
        (tuple(history.tolist()), target) for history, target in zip(rows.histories, rows.target.tolist(), strict=True)
    ]
