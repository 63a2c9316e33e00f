"""``dataserver packet show --would``: what storing a packet now would do, without doing it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import tzinfo
from pathlib import Path
from typing import Any

from dataserver.cli.output import (
    beginning,
    number_text,
    print_line,
    print_table,
    shortened,
    time_text,
)
from dataserver.config.paths import Paths
from dataserver.config.settings import Settings
from dataserver.errors import PacketError, Reason, SchemaError, StoreRefused
from dataserver.model import Arrival, Packet
from dataserver.rules.times import packet_time
from dataserver.spool.files import PACKET_NAME
from dataserver.store import schema
from dataserver.store.layout import Kind, inspect
from dataserver.store.opening import missing_file, open_recorder, open_store
from dataserver.store.recorder import Recorder, RefusedPart, Rehearsal


@dataclass(frozen=True, slots=True)
class Would:
    """What would become of a packet; ``rehearsal`` is None if it would be rejected before.

    ``time`` is the packet's in epoch seconds, or None if it is unreadable.  ``new_database``:
    there is no database yet, so everything would be new.
    """

    time: int | None
    error: PacketError | None
    rehearsal: Rehearsal | None
    new_database: bool
    zone: tzinfo

    def as_json(self) -> dict[str, Any]:
        """For ``--json``: times in epoch seconds, ``rejected`` null if it would be stored."""
        data: dict[str, Any] = {
            "time": self.time,
            "rejected": self.error.reason if self.error else None,
            "detail": self.error.message if self.error else None,
            "new_database": self.new_database,
        }
        rehearsal = self.rehearsal
        if rehearsal is not None:
            data |= {
                "duplicate": rehearsal.duplicate,
                "late": rehearsal.late,
                "ignored": rehearsal.tally.ignored > 0,
                "agent": rehearsal.agent,
                "new_agent": rehearsal.new_agent,
                "new_modules": list(rehearsal.new_modules),
                "samples": rehearsal.tally.samples,
                "refused": rehearsal.tally.refused,
                "refusals": [part._asdict() for part in rehearsal.refused],
                "late_counters_dropped": rehearsal.tally.late_counters_dropped,
                "stored": [point._asdict() for point in rehearsal.points],
                "events": [
                    {"type": event.type, "severity": event.severity, "text": event.text}
                    for event in rehearsal.events
                ],
            }
        return data

    def show(self) -> None:
        """Print it."""
        print_line()
        for line in _lines(self):
            print_line(line)
        rehearsal = self.rehearsal
        if rehearsal is not None and rehearsal.points:
            print_line()
            print_table(
                ("STORED", "TIME", "VALUE"),
                [
                    (point.module, time_text(point.time, self.zone), _value(point.value))
                    for point in rehearsal.points
                ],
            )
        if rehearsal is not None and rehearsal.refused:
            print_line()
            print_table(("REFUSED", "TIMES", "VALUE", "WHY"), map(_refused_row, rehearsal.refused))
        if rehearsal is not None and rehearsal.events:
            print_line()
            rows = [(event.type, shortened(event.text)) for event in rehearsal.events]
            print_table(("EVENT", "TEXT"), rows)


def would(
    packet: Packet,
    size: int,
    name: str,
    modified: int,
    now: int,
    settings: Settings,
    paths: Paths,
) -> Would:
    """Store a packet up to its commit, and roll back.

    ``name`` is the file's name, ``modified`` its modification time; times are epoch seconds,
    ``size`` is in bytes.  Raises StoreError.
    """
    match = PACKET_NAME.fullmatch(name)
    number = int(match[2]) if match else 0
    zone = settings.zone(os.environ)
    time = packet_time(packet, zone=zone, number=number, modified=modified)
    error = _rejected_before_store(size, time, now, settings)
    if error is not None:
        return Would(time, error, None, False, zone)
    arrival = Arrival(packet, time, number, modified)
    with _recorder(settings, paths, zone) as (recorder, new_database):
        try:
            rehearsal = recorder.rehearse(arrival, now)
        except StoreRefused as refused:
            error = PacketError(Reason.REFUSED, refused.message)
            return Would(time, error, None, new_database, zone)
    return Would(time, rehearsal.error, rehearsal, new_database, zone)


def _rejected_before_store(
    size: int, time: int | None, now: int, settings: Settings
) -> PacketError | None:
    """Why the worker would reject the packet without using the database, or None."""
    if size > settings.max_packet:
        text = f"{size} bytes, at most {settings.max_packet} are allowed"
        return PacketError(Reason.TOO_LARGE, text)
    if time is not None and time > now + settings.max_ahead:
        text = f"its time is more than {settings.max_ahead} s ahead of the server's clock"
        return PacketError(Reason.CLOCK, text)
    return None


@contextmanager
def _recorder(settings: Settings, paths: Paths, zone: tzinfo) -> Iterator[tuple[Recorder, bool]]:
    """A recorder, and whether its database is a temporary one since there is none yet."""
    with tempfile.TemporaryDirectory(prefix="dataserver-") as scratch:
        new = not _exists(settings, paths.home)
        if new:
            settings = replace(settings, database="sqlite:///scratch.db")
        engine = open_store(settings, Path(scratch) if new else paths.home)
        try:
            yield open_recorder(settings, engine, zone), new
        finally:
            engine.dispose()


def _exists(settings: Settings, home: Path) -> bool:
    """Whether the database exists with all tables; SchemaError if some are missing.

    Opening a recorder would create the missing ones, and a rehearsal must not (except for tables
    of mere information, which every other process would create as well).
    """
    if missing_file(settings, home) is not None:
        return False
    engine = open_store(settings, home, readonly=True)
    try:
        layout = inspect(engine)
    finally:
        engine.dispose()
    if layout.kind is Kind.EMPTY:
        return False
    needed = [table for table in schema.ours.sorted_tables if table not in schema.OPTIONAL]
    if layout.kind is Kind.OWN:
        needed += schema.pandora.sorted_tables
    if not all(layout.has(table) for table in needed):
        raise SchemaError("tables of this server are missing", hint="run: dataserver db create")
    return True


def _lines(result: Would) -> Iterator[str]:
    yield f"its time: {time_text(result.time, result.zone)}"
    if result.new_database:
        yield "there is no database yet: as for a new one"
    if result.error is not None:
        yield f"would be rejected: {result.error.reason}: {result.error.message}"
        return
    rehearsal = result.rehearsal
    assert rehearsal is not None
    tally = rehearsal.tally
    if rehearsal.duplicate:
        yield "would only be acknowledged: it is stored already"
    elif tally.ignored:
        yield f"would be ignored: agent {rehearsal.agent} is disabled"
    elif rehearsal.agent is None:
        yield "would refresh the row of the server that sent it"
    else:
        yield from _stored(rehearsal)


def _stored(rehearsal: Rehearsal) -> Iterator[str]:
    tally = rehearsal.tally
    yield f"agent: {rehearsal.agent}, {'would be created' if rehearsal.new_agent else 'known'}"
    if rehearsal.late:
        yield "late: a newer packet of its agent is stored, so only history would change"
    for name in rehearsal.new_modules:
        yield f"would create module: {name}"
    yield f"values: {tally.samples}, of them refused: {tally.refused}"
    if tally.late_counters_dropped:
        yield f"late counter readings, dropped: {tally.late_counters_dropped}"
    yield f"would store: {len(rehearsal.points)} history rows"


def _refused_row(part: RefusedPart) -> tuple[object, ...]:
    why = f"{part.reason.text}; {part.reason.remedy}"
    return part.module or "-", part.times, beginning(part.value) or "-", why


def _value(value: float | str) -> str:
    return shortened(value) if isinstance(value, str) else number_text(value)
