"""A module's thresholds as a graph needs them: zones of values, and the status of one; pure."""

from __future__ import annotations

from collections.abc import Iterator

from dataserver.graphs.model import Zone
from dataserver.status import Interval, Rules, Status, judge_number, judge_text
from dataserver.store.buckets import Zones

CRITICAL, WARNING = Status.CRITICAL.name.lower(), Status.WARNING.name.lower()


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


def number_status(rules: Rules, value: float, *, is_proc: bool) -> str:
    """The status of a number whose rules are not of percents."""
    return judge_number(rules, value, is_proc, "").name.lower()


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
