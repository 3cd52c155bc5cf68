"""Plain checks of a candidate file: what is wrong in itself, whatever a guess can win by it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rosepo_bench.evaluation.audit.table import PAD, Rows, Table, repeated

Answer = tuple[tuple[int, ...], int]  # a history and its target
LONG = 5  # items of a history that two users do not share by chance


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
    rows, n, own = table.rows, len(table.rows), _answers(table.rows)
    answer = f"target and history ({LONG} items or more) are those"
    missing = int((rows.candidates != rows.target[:, None]).all(1).sum())
    other = n - int(np.bincount(rows.sizes).max())
    found = [
        Check("the target is missing in the list", missing, n, flaw=True),
        Check("an item stands in the list twice", int(repeated(rows.candidates).sum()), n, flaw=True),
        Check("the list has another length than most", other, n),
    ]
    if rows.histories:
        known = [set(history.tolist()) for history in rows.histories]
        listed = [
            set(own[own != PAD].tolist()) - {target} for own, target in zip(rows.candidates, rows.target, strict=True)
        ]
        found += [
            Check("the target is in the history", sum(map(set.__contains__, known, rows.target.tolist())), n),
            Check("a negative is in the history", sum(map(bool, map(set.__and__, known, listed))), n),
            Check(f"{answer} of an earlier row", len(own) - len(set(own)), n),
        ]
    for split in table.others:
        if rows.histories and split.histories:
            answers = set(_answers(split))
            found.append(Check(f"{answer} of {split.name} too", sum(one in answers for one in own), n))
        if rows.users and split.users:
            users, asked = set(split.users), set(_asked(split))
            again = sum(one in asked for one in _asked(rows))
            found += [
                Check(f"the user is in {split.name} too", sum(user in users for user in rows.users), n),
                Check(f"user, history and target are those of a row of {split.name}", again, n, flaw=True),
            ]
    return tuple(found)


def _answers(rows: Rows) -> list[Answer]:
    """The targets with their histories, where these are long."""
    pairs = zip(rows.histories, rows.target.tolist(), strict=False)
    return [(tuple(history.tolist()), target) for history, target in pairs if len(history) >= LONG]


def _asked(rows: Rows) -> list[tuple[str, tuple[int, ...], int]]:
    """Users, histories and targets."""
    histories = [tuple(history.tolist()) for history in rows.histories] or [()] * len(rows)
    return list(zip(rows.users, histories, rows.target.tolist(), strict=True))
