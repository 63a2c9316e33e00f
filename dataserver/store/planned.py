"""The planned downtimes that the console wrote, read from the database: those that matter now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

from sqlalchemy import Connection, String, and_, cast, or_, select

from dataserver import entities
from dataserver.downtimes import ONCE, Schedule, time_of_day
from dataserver.store import schema
from dataserver.store.layout import Layout

QUIET, DISABLE_AGENTS, DISABLE_MODULES = "quiet", "disable_agents", "disable_agent_modules"
DISABLE_ALERTS = "disable_agents_alerts"
TYPES = (QUIET, DISABLE_AGENTS, DISABLE_MODULES, DISABLE_ALERTS)
#: The default of the column, which the console never writes.
_ALERTS_MISSPELT = "disabled_agents_alerts"

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_column = schema.downtime.c
_NEEDED = ("id", "name", "begins", "ends", "executed", "type", "execution", "periodicity")


@dataclass(frozen=True, slots=True)
class Downtime:
    """One planned downtime; its name is plain, its type one of ``TYPES`` unless it is at fault."""

    id: int
    name: str
    type: str
    user: str
    schedule: Schedule
    executed: bool

    def active(self, now: int, zone: tzinfo) -> bool:
        """Whether it is on at ``now`` (epoch seconds); one that is at fault never is."""
        return self.type in TYPES and self.schedule.active(now, zone)

    def fault(self) -> str | None:
        """Why it cannot ever be on, as a clause; None where it can."""
        if self.type not in TYPES:
            return f"its type {self.type!r} is not known"
        return self.schedule.fault()


def there(layout: Layout) -> bool:
    """Whether the database has planned downtimes at all, in a form that can be read."""
    tables = (schema.downtime, schema.downtime_agent, schema.downtime_module)
    return all(map(layout.has, tables)) and all(layout.has(_column[key]) for key in _NEEDED)


def read(conn: Connection, layout: Layout, now: int, started: Sequence[int]) -> Iterator[Downtime]:
    """The downtimes that may be on at ``now`` (epoch s) or were, in the order of their ids.

    Not those that are over for good, but for the ``started`` ones.
    """
    present = layout.columns(schema.downtime)
    times = {_column.time_from.name, _column.time_to.name}
    # A TIME may hold more than the driver's type for it takes.
    columns = [cast(c, String(20)).label(c.key) if c.name in times else c for c in present]
    may_be_on = or_(
        _column.execution != ONCE,
        and_(_column.begins <= now, _column.ends > now),
        _column.executed != 0,
        _column.id.in_(started),
    )
    for row in conn.execute(select(*columns).where(may_be_on).order_by(_column.id)):
        values = {column.key: value for column, value in zip(present, row, strict=True)}
        yield _from_row(values)


def _from_row(row: Mapping[str, Any]) -> Downtime:
    schedule = Schedule(
        execution=row["execution"],
        periodicity=row["periodicity"],
        begins=row["begins"],
        ends=row["ends"],
        weekdays=frozenset(day for day, key in enumerate(_DAYS) if row.get(key)),
        time_from=time_of_day(row.get("time_from")),
        time_to=time_of_day(row.get("time_to")),
        day_from=row.get("day_from"),
        day_to=row.get("day_to"),
        cron_from=row.get("cron_from") or "",
        cron_to=row.get("cron_to") or "",
    )
    return Downtime(
        id=row["id"],
        name=entities.decode(row["name"]),
        type=_type(row),
        user=str(row.get("user_id") or ""),
        schedule=schedule,
        executed=bool(row["executed"]),
    )


def _type(row: Mapping[str, Any]) -> str:
    """What it switches off; of older databases a flag says that it is about alerts only."""
    written = str(row["type"])
    about_alerts = row.get("only_alerts") and written != QUIET
    return DISABLE_ALERTS if about_alerts or written == _ALERTS_MISSPELT else written
