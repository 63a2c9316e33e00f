"""The planned downtimes that the console wrote, read from the database: those that matter now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, String, and_, cast, or_, select

from dataserver import entities
from dataserver.downtimes import ONCE, Schedule, time_of_day
from dataserver.store import schema
from dataserver.store.layout import Layout

QUIET, DISABLE_AGENTS, DISABLE_MODULES = "quiet", "disable_agents", "disable_agent_modules"
#: The others concern alerts only, which this server does not evaluate: they are left to one
#: that does, and so stay unmarked.
_TYPES = frozenset({QUIET, DISABLE_AGENTS, DISABLE_MODULES})

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_column = schema.downtime.c
_NEEDED = ("id", "name", "begins", "ends", "executed", "type", "execution", "periodicity")


@dataclass(frozen=True, slots=True)
class Downtime:
    """One planned downtime; its name is plain."""

    id: int
    name: str
    type: str
    user: str
    schedule: Schedule
    executed: bool


def there(layout: Layout) -> bool:
    """Whether the database has planned downtimes at all, in a form that can be read."""
    tables = (schema.downtime, schema.downtime_agent, schema.downtime_module)
    return all(map(layout.has, tables)) and all(layout.has(_column[key]) for key in _NEEDED)


def read(conn: Connection, layout: Layout, now: int, started: Sequence[int]) -> Iterator[Downtime]:
    """The downtimes that may be on at ``now`` (epoch s) or were, in the order of their ids.

    Not those that are over for good, but for the ``started`` ones, nor those of alerts only.
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
        of_alerts = values.get("only_alerts") and values["type"] != QUIET
        if values["type"] in _TYPES and not of_alerts:
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
        type=row["type"],
        user=str(row.get("user_id") or ""),
        schedule=schedule,
        executed=bool(row["executed"]),
    )
