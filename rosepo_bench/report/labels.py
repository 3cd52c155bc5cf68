"""Names of table rows: the method, and the settings in which its rows differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rosepo_bench.base.failures import Failure
from rosepo_bench.report.result import Result

MOST = 4
"""Settings that a name tells; where more differ, the hash of the row tells rows apart."""


Row = Result | Failure


def labels(rows: Sequence[Row]) -> list[str]:
    """The name of each row. Those of methods with several rows are followed by the settings in which they differ, e.g.
    ``dpo (loss.beta=0.1)``."""
    return [_label(row, [one for one in rows if one.method == row.method]) for row in rows]


def _label(row: Row, rows: Sequence[Row]) -> str:
    if len(rows) == 1:
        return row.method
    names = sorted({name for one in rows for name in one.settings})
    differing = [name for name in names if len({_shown(one.settings, name) for one in rows}) > 1]
    told = [f"{name}={_shown(row.settings, name)}" for name in differing[:MOST]]
    if len(differing) > MOST:
        told.append(f"and {len(differing) - MOST} more, row {row.row[:8]}")
    return f"{row.method} ({', '.join(told) or f'row {row.row[:8]}'})"


def _shown(settings: Mapping[str, Any], name: str) -> str:
    if name not in settings:
        return "-"
    value = settings[name]
    return value if isinstance(value, str) else json.dumps(value)
