"""Times and values as places at axes; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

DAY = 86_400
#: matplotlib's arithmetic on larger numbers overflows.
_HUGE = 1e150


def days(times: Sequence[int]) -> list[float]:
    """Epoch seconds as the days that matplotlib counts."""
    return [time / DAY for time in times]


def bounded(value: float) -> float:
    """A value that can be drawn; what is not a number stays that."""
    return value if math.isnan(value) else min(max(value, -_HUGE), _HUGE)


def reach(low: float, high: float) -> tuple[float, float]:
    """The ends of an axis that shows values from ``low`` to ``high``."""
    low, high = bounded(low), bounded(high)
    largest = max(abs(low), abs(high))
    is_flat = high - low <= 1e-9 * largest
    room = max(0.1 * largest, 0.5) if is_flat else 0.07 * (high - low)
    return low - room, high + room


def tick(value: float) -> str:
    """A number at an axis: short, thousands and more as k, M, G, T."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if size <= abs(value) and 1e4 <= abs(value) < 1e15:
            return f"{value / size:.6g}{unit}".replace("-", "−")
    return f"{value:.6g}".replace("-", "−")
