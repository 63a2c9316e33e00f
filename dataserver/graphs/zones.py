"""A module's thresholds as a graph needs them: zones of values, and the status of one; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dataserver.graphs.model import Zone
from dataserver.status import Interval, Rules, Status, judge_text

NORMAL = Status.NORMAL.name.lower()
CRITICAL, WARNING = Status.CRITICAL.name.lower(), Status.WARNING.name.lower()


class Zones(NamedTuple):
    """Where numbers are critical, where warning; neither is of percents.  None: nowhere."""

    critical: Interval | None = None
    warning: Interval | None = None

    @property
    def edges(self) -> tuple[float, ...]:
        """The values at which the status may change, from the lowest."""
        zones = [zone for zone in self if zone is not None]
        return tuple(sorted({edge for zone in zones for edge in (zone.low, zone.high)}))

    def status(self, value: float) -> str:
        """The status of a number."""
        if self.critical is not None and self.critical.holds(value, None):
            return CRITICAL
        if self.warning is not None and self.warning.holds(value, None):
            return WARNING
        return NORMAL

    def seconds(self, whole: float, over: Sequence[float]) -> dict[str | None, float]:
        """Seconds by status, of ``whole`` seconds of which ``over`` were at or above each edge.

        Between two edges the status is that of the lower one: intervals have their lower end.
        """
        found: dict[str | None, float] = {}
        above = [whole, *over]
        for place, value in enumerate((-math.inf, *self.edges)):
            held = above[place] - (above[place + 1] if place + 1 < len(above) else 0)
            status = self.status(value)
            found[status] = found.get(status, 0.0) + held
        return found


def zones_of(rules: Rules, *, is_proc: bool) -> Zones | None:
    """Where numbers are critical and warning; None: that depends on the value before."""
    critical, warning = rules.critical, rules.warning
    if critical is None and is_proc:
        critical = rules.down
    if any(zone is not None and zone.percent for zone in (critical, warning)):
        return None
    return Zones(critical, warning)


def shown(zones: Zones | None) -> tuple[Zone, ...]:
    """The zones as they are drawn, warning first: critical lies over it."""
    if zones is None:
        return ()
    return (*_shown(WARNING, zones.warning), *_shown(CRITICAL, zones.critical))


def text_status(rules: Rules, text: str) -> str:
    """The status of a text."""
    return judge_text(rules, text).name.lower()


def _shown(status: str, zone: Interval | None) -> Iterator[Zone]:
    if zone is None:
        return
    high = zone.high if zone.high >= zone.low else None
    if not zone.inverse:
        yield Zone(status, zone.low, high)
        return
    yield Zone(status, None, zone.low)
    if high is not None:
        yield Zone(status, high, None)
