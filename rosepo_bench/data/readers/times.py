"""Times of interactions: the units that a file may use, the range that every reader accepts, and what times outside of
it suggest."""

from __future__ import annotations

import time
from decimal import Decimal, DecimalException
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Int64

from rosepo_bench.base.errors import UserError

EARLIEST = 631_152_000  # 1990; the latest is tomorrow
DAY = 86_400
ORDER = 0  # ticks a second of numbers that are no times
NANO = 10**9
# For each `time_unit`: ticks to its 1, and ticks to a second. Empty: a format of whole seconds, without that setting.
UNITS = {"": (1, 1), "seconds": (NANO, NANO), "milliseconds": (NANO // 1000, NANO), "order": (1, ORDER)}
SUSPECTS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}


def limits(ticks: int = 1) -> tuple[int, int]:
    """The first and the last time that a reader accepts, 1990 and tomorrow, where a second has ``ticks``. ``ORDER``:
    whatever eight bytes hold."""
    if ticks == ORDER:
        return -(2**63), 2**63 - 1
    return EARLIEST * ticks, (int(time.time()) + DAY) * ticks


def plausible(seconds: Int64[np.ndarray, " rows"]) -> Bool[np.ndarray, " rows"]:
    """Which unix seconds are within the limits: the rest of a truncated number, or the year 1, is not."""
    first, last = limits()
    return (seconds >= first) & (seconds <= last)


def parse(text: str, unit: str) -> int:
    """Ticks of a number in ``unit``, exact to the billionth of a second. ValueError: not a number, or an order with a
    fraction."""
    scale, ticks = UNITS[unit]
    if text.isdecimal() and len(text) < 25:
        return int(text) * scale
    try:
        value = Decimal(text)
    except DecimalException:
        raise ValueError(text) from None
    if not value.is_finite() or value.adjusted() > 25 or (ticks == ORDER and value % 1):
        raise ValueError(text)
    return int(value * scale)


def whole(ticks: Int64[np.ndarray, " rows"], unit: str) -> Int64[np.ndarray, " rows"]:
    """Seconds where all times are whole seconds; otherwise the ticks as they are."""
    second = UNITS[unit][1]
    return ticks // second if second > 1 and not (ticks % second).any() else ticks


def implausible(where: str, example: int, unit: str = "") -> UserError:
    """The error where no time at all is within the limits. ``example`` is one of them, in ticks."""
    number = Fraction(example, UNITS[unit][0])  # as the file has it
    first, last = limits()
    suspect = next((name for name, scale in SUSPECTS.items() if first <= number / scale <= last), "")
    if suspect and unit:
        wanted = f'set time_unit = "{suspect}"' if suspect in UNITS else "write seconds or milliseconds"
        advice = f"it looks like {suspect}: {wanted}"
    elif suspect:
        advice = f"it looks like {suspect}: write seconds"
    elif unit and number < first:
        advice = 'if the numbers only tell which event came first, set time_unit = "order"'
    else:
        advice = "correct the times"
    found = f"no time is in unix {unit or 'seconds'} between 1990 and tomorrow, e.g. {float(number):.15g}"
    return UserError(f"{where}: {found}; {advice}")
