"""Keeps the rows of ``tserver``: one per server name and type, up or down.

Our own row is renewed by each of our live processes, with the sums over all of them; the row of a
server that reports by packet, by its packets.  Any process that finds that a row has not been
renewed sets it down, other servers' rows too, as Pandora's own servers do for each other.  Each
change between up and down makes one event: of several processes that want to make the change, the
one whose update changed the row writes it.

Neither kind of row is ever the master (``master`` is 0): the master takes over the polling of dead
servers, which a server that only reads packets cannot do.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    func,
    insert,
    literal,
    select,
    update,
)

from dataserver.model import Packet
from dataserver.rules.due import DEFAULT_INTERVAL
from dataserver.rules.events import CRITICAL, WARNING, Event
from dataserver.rules.times import SLACK
from dataserver.store import columns, schema
from dataserver.store.events import EventLog
from dataserver.store.layout import Layout
from dataserver.store.ledger import KIND_SERVER, lock_names
from dataserver.store.processes import Processes, Totals
from dataserver.store.sql import Sql

log = logging.getLogger(__name__)

#: ``server_type`` of data servers, and the default for servers that report by packet.
DATA_SERVER, SATELLITE = 0, 13
#: A row is set down after this many of its ``server_keepalive``.
GIVEN_UP = 2
#: The names of types of servers in events: Pandora's words.
_WORDS = (
    *("dataserver", "networkserver", "snmpconsole", "discoveryserver", "pluginserver"),
    *("predictionserver", "wmiserver", "exportserver", "inventoryserver", "webserver"),
    *("eventserver", "icmpserver", "snmpserver", "satelliteserver", "transactionalserver"),
    *("mfserver", "syncserver", "wuxserver", "syslogserver", "provisioningserver"),
    *("migrationserver", "alertserver", "correlationserver", "ncmserver", "netflowserver"),
    *("logserver", "madeserver"),
)
#: With this many rows, packets add no more: anyone who may upload can invent servers.
MOST = 1_000
#: The description of a new row: Pandora's words.
_NEW = "Autocreated at startup"
#: The columns without which no row can be kept.
_NEEDED = ("id", "name", "server_type", "status", "keepalive")
_UP, _DOWN, _CRASHED = 1, 0, -1
#: A server's name and type.
_Server = tuple[str, int]


class Modules(NamedTuple):
    """The number of enabled modules of all data servers, and of one server."""

    all: int
    own: int


class Servers:
    """Keeps rows in the caller's transaction; does nothing if the database lacks the table.

    ``now`` is by the database's clock, in epoch seconds and as local text.
    """

    def __init__(self, sql: Sql, layout: Layout, events: EventLog) -> None:
        self._sql = sql
        self._layout = layout
        self._events = events
        self._keeps = all(layout.has(schema.server.c[key]) for key in _NEEDED)
        self._has_reported_full = False
        #: Servers whose last heartbeat lies ahead of the clock: that, and when it was first seen.
        self._ahead: dict[int, tuple[int, int]] = {}

    def beat(
        self,
        conn: Connection,
        name: str,
        sums: Totals,
        *,
        keepalive: int,
        version: str,
        now: int,
        now_text: str,
        address: str | None = None,
        modules: Modules | None = None,
    ) -> None:
        """Renew the row of the data server ``name``; the next time within ``keepalive`` seconds.

        ``address``: a process of it has just started on this address; ``modules``: new counts.
        """
        row: dict[str, Any] = {
            "version": version,
            "threads": sums.threads,
            "queued_modules": sums.queue,
            "lag_time": sums.lag,
            "server_keepalive": keepalive,
        }
        if address is not None:
            row |= {"laststart": now_text, "ip_address": address}
        if modules is not None:
            row |= {
                "total_modules_running": modules.all,
                "my_modules": modules.own,
                "stat_utimestamp": now,
            }
        self._renew(conn, name, DATA_SERVER, row, now, now_text)

    def packet(self, conn: Connection, packet: Packet, now: int, now_text: str) -> None:
        """Renew the row of the server that sent this packet.

        A new server gets no row if there are :data:`MOST`.
        """
        if not packet.server_name or not self._keeps:
            return
        kind = columns.to_int(packet.server_type, 0, 255) or SATELLITE
        # Pandora's servers treat each packet as a new start.
        row: dict[str, Any] = {"version": packet.version or "", "laststart": now_text}
        if packet.address:
            row["ip_address"] = packet.address
        if find_server(conn, self._layout, packet.server_name, kind) is None:
            count = conn.scalar(select(func.count()).select_from(schema.server)) or 0
            if count >= MOST:
                self._report_full(packet.server_name, count)
                return
        self._renew(conn, packet.server_name, kind, row, now, now_text)

    def _report_full(self, name: str, count: int) -> None:
        if not self._has_reported_full:
            self._has_reported_full = True
            log.warning(
                "server %a, which reports by packet, gets no row, nor do other new servers:"
                " tserver has %d rows; find out who sends these packets, and delete the invalid"
                " servers in the console",
                name,
                count,
            )

    def leave(
        self, conn: Connection, name: str, processes: Processes, now: int, now_text: str
    ) -> None:
        """A process of the data server ``name`` stops: set the row down if it was the last one."""
        if not self._keeps:
            return
        c = schema.server.c
        here = (c.name == _fit("name", name), c.server_type == DATA_SERVER)
        # Locked before the others are counted: of two that stop at once, one is the last.
        conn.execute(select(c.id).where(*here).with_for_update()).all()
        if processes.sums(conn).processes == 0:
            self._set_down(conn, (name, DATA_SERVER), _DOWN, now, now_text, *here)

    def watch(self, conn: Connection, now: int, now_text: str, since: int) -> None:
        """Set down every row that was not renewed in time.

        ``since`` is when this process began to watch: a server that could not be seen before (no
        database, no process of ours) has as much time as any other to renew its row.
        """
        c = schema.server.c
        if not self._keeps or not self._layout.has(c.server_keepalive_utimestamp):
            return
        every = c.server_keepalive if self._layout.has(c.server_keepalive) else literal(0)
        seen = c.server_keepalive_utimestamp
        # A server that never writes its time of renewal cannot be found to be down.
        query = select(c.id, c.name, c.server_type, seen, every).where(c.status == _UP, seen > 0)
        for server_id, name, kind, last, keepalive in conn.execute(query.order_by(c.id)).all():
            alive_at = max(self._seen_at(server_id, last, now), since)
            if now - alive_at > GIVEN_UP * (keepalive or DEFAULT_INTERVAL):
                where = (c.id == server_id, seen == last)
                self._set_down(conn, (name, kind), _CRASHED, now, now_text, *where)

    def _seen_at(self, server_id: int, renewed: int, now: int) -> int:
        """When the server was last alive, given that its row says ``renewed``.

        A time ahead is by a wrong clock, so it counts from the moment when it was first seen.
        """
        if renewed <= now + SLACK:
            self._ahead.pop(server_id, None)
            return renewed
        if self._ahead.get(server_id, (0, 0))[0] != renewed:
            self._ahead[server_id] = (renewed, now)
        return self._ahead[server_id][1]

    def count_modules(self, conn: Connection, name: str) -> Modules:
        """Enabled modules of enabled agents, by the server that they run on."""
        s, m, a, c = schema.state.c, schema.module.c, schema.agent.c, schema.server.c
        own_id = find_server(conn, self._layout, name)
        if own_id is None or not self._layout.has(s.running_by):
            return Modules(0, 0)
        running = Counter[int]()
        by_server = select(s.running_by, func.count()).group_by(s.running_by)
        # All are counted from the index alone, then the (few) disabled ones are subtracted.
        running.update(_counts(conn, by_server))
        joined = by_server.join_from(schema.state, schema.module, m.id == s.module_id)
        running.subtract(_counts(conn, joined.where(m.disabled > 0)))
        joined = joined.join(schema.agent, a.id == m.agent_id)
        running.subtract(_counts(conn, joined.where(a.disabled > 0, m.disabled == 0)))
        every = conn.scalars(select(c.id).where(c.server_type == DATA_SERVER))
        return Modules(sum(running[server_id] for server_id in every), running[own_id])

    # -- one row --

    def _renew(
        self,
        conn: Connection,
        name: str,
        kind: int,
        more: Mapping[str, Any],
        now: int,
        now_text: str,
    ) -> None:
        if not self._keeps:
            return
        row = {"keepalive": now_text, "server_keepalive_utimestamp": now, "master": 0, **more}
        row = self._row(row)
        name = _fit("name", name)
        server_id = find_server(conn, self._layout, name, kind)
        if server_id is None:
            lock_names(conn, self._sql, KIND_SERVER, [f"{kind} {name}"])
            server_id = find_server(conn, self._layout, name, kind)
        if server_id is None:
            new = {"name": name, "server_type": kind, "status": _UP, "ip_address": ""}
            new |= {"laststart": now_text, "description": _NEW, **row}
            conn.execute(insert(schema.server).values(self._row(new)))
            self._write_event(conn, (name, kind), now, now_text, up=True)
            return
        c = schema.server.c
        here = update(schema.server).where(c.id == server_id)
        if conn.execute(here.where(c.status == _UP).values(row)).rowcount:
            return
        if conn.execute(here.where(c.status != _UP).values({**row, "status": _UP})).rowcount:
            self._write_event(conn, (name, kind), now, now_text, up=True)

    def _set_down(
        self,
        conn: Connection,
        server: _Server,
        status: int,
        now: int,
        now_text: str,
        *where: ColumnElement[bool],
    ) -> None:
        c = schema.server.c
        down = update(schema.server).where(c.status == _UP, *where)
        values = {"status": status} if status == _CRASHED else {"status": status, "threads": 0}
        if conn.execute(down.values(self._row(values))).rowcount:
            self._write_event(conn, server, now, now_text, up=False)

    def _write_event(
        self, conn: Connection, server: _Server, now: int, now_text: str, *, up: bool
    ) -> None:
        severity, word = (WARNING, "UP") if up else (CRITICAL, "DOWN")
        name, kind = server
        what = _WORDS[kind] if 0 <= kind < len(_WORDS) else "server"
        event = Event("system", severity, f"{name} {what} going {word}")
        self._events.write(conn, [event], now, now_text)

    def _row(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values for which the database has a column, cut to fit."""
        return {
            key: _fit(key, value) if isinstance(value, str) else value
            for key, value in values.items()
            if self._layout.has(schema.server.c[key])
        }


def _counts(conn: Connection, query: Select[Any]) -> dict[int, int]:
    return {row[0] or 0: row[1] for row in conn.execute(query)}


def find_server(conn: Connection, layout: Layout, name: str, kind: int = DATA_SERVER) -> int | None:
    """The id of the row with this name and type, or None if there is none or no such table."""
    c = schema.server.c
    if not all(map(layout.has, (c.id, c.name, c.server_type))):
        return None
    query = select(c.id).where(c.name == _fit("name", name), c.server_type == kind)
    return conn.scalar(query.order_by(c.id).limit(1))


def _fit(key: str, text: str) -> str:
    return columns.fit(schema.server, key, text)
