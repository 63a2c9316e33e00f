"""Stores a batch of packets in one transaction, from the agents' locks to the ledger.

The steps, in the order in which locks are taken (1 to 3: :mod:`dataserver.store.admission`):

1.  agents are found or created;
2.  their versions are locked;
3.  packets that are in the ledger already are left out;
4.  each agent's packets are evaluated in order of time, which collects the rows to write;
5.  all rows are written in bulk: ledger, history, late values, counters, states, agents with
    their counts, events, versions, refused values;
6.  commit.  If any step fails, the transaction is rolled back and the cache forgets the agents.

:meth:`Recorder.rehearse` goes the same way with one packet up to the last statement before the
commit, reports what would be stored (:class:`Rehearsal`) and rolls back.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import tzinfo
from time import monotonic
from typing import NamedTuple, Self

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.exc import IntegrityError

from dataserver.errors import PacketError, StoreConflict, StoreUnavailable
from dataserver.failpoints import reach
from dataserver.model import Arrival, Module, Packet
from dataserver.rules import entities
from dataserver.rules.events import MOST_OF_A_PACKET, Event, packet_events
from dataserver.rules.refusals import Refusal
from dataserver.rules.times import is_valid_offset
from dataserver.store import ledger, refused, schema
from dataserver.store.admission import Admission, Outcome, Work
from dataserver.store.agents import Agents, AutoCreatePolicy
from dataserver.store.cache import AgentCache, AgentEntry
from dataserver.store.changes import CREATED, Changes, FirstRefused, Tally, Writer
from dataserver.store.counts import recount
from dataserver.store.database import verify_file
from dataserver.store.errors import RAW, classify, translating
from dataserver.store.evaluate import Evaluator
from dataserver.store.events import EventLog
from dataserver.store.layout import Layout
from dataserver.store.modules import Modules, module_name
from dataserver.store.reference import Reference, read_reference
from dataserver.store.schema import COUNT_KEYS
from dataserver.store.sections import Sections
from dataserver.store.servers import find_server
from dataserver.store.sql import Row, Sql
from dataserver.store.standing import column_text
from dataserver.store.write import States, write_late

log = logging.getLogger(__name__)

#: An agent's newest packet time (epoch seconds) and interval (seconds); None if not known.
Known = tuple[int | None, int | None]


class Recorder:
    """Stores batches of packets in one database; not safe for use by several threads at once."""

    def __init__(
        self,
        engine: Engine,
        layout: Layout,
        *,
        zone: tzinfo,
        learning: AutoCreatePolicy,
        longest_text: int,
        longest_statement: int | None = None,
        max_ahead: int = 86_400,
        ledger_days: int = 7,
        cache_seconds: float = 60.0,
    ) -> None:
        self._engine = engine
        self._longest_statement = longest_statement
        self._cache_seconds = cache_seconds
        self.layout = layout
        self._sql = Sql(engine.dialect)
        self._writer = Writer(self._sql, layout)
        self._states = States(self._sql, layout)
        self._events = EventLog(self._sql, layout)
        self.catalog = AgentCache(zone, layout)
        self._agents = Agents(self._sql, layout, self.catalog, learning)
        self._modules = Modules(self._sql, layout, learning.max_modules)
        self._sections = Sections(self._sql, layout)
        self._evaluator = Evaluator(zone, longest_text, max_ahead)
        #: Refused values are stored if their table has all of its columns; the last error of that.
        self._stores_refused = len(layout.columns(schema.refused)) == len(schema.refused.columns)
        self._refused_error = ""
        self._reference: tuple[Reference, float] | None = None
        self._server_name = learning.server_name
        self._text = column_text(zone)
        self._admission = Admission(
            self._sql,
            self.catalog,
            self._agents,
            self._sections,
            self._text,
            server_name=learning.server_name,
            ledger_days=ledger_days,
            cache_seconds=cache_seconds,
        )
        self.clocks = self._admission.clocks

    def record(self, arrivals: Sequence[Arrival], now: int) -> tuple[list[Outcome], Tally]:
        """Store ``arrivals`` in one transaction; ``now`` in epoch seconds.

        Returns an outcome for each, in their order, and the tally of the transaction.
        Raises StoreConflict, StoreUnavailable or StoreRefused; then nothing was stored.
        """
        self.catalog.trim()
        batch = Changes(now)
        outcomes = [Outcome()] * len(arrivals)
        try:
            with self._translating("store packets"), self._engine.begin() as conn:
                work = self._admit(conn, arrivals, batch, outcomes)
                self._evaluate(conn, work, batch)
                self._write(conn, work, batch)
                reach("before-commit")
            verify_file(self._engine)
        except BaseException:
            # Entries were changed in place, and whether the transaction was committed is unknown.
            self.catalog.forget(batch.agents.values())
            raise
        for agent in batch.agents.values():
            agent.created = False
        self._admission.looks_up_all = False
        self.clocks.add(batch.clocks)
        reach("after-commit")
        return outcomes, batch.tally

    def rehearse(self, arrival: Arrival, now: int) -> Rehearsal:
        """What :meth:`record` would do with this packet alone: done, reported and rolled back.

        Raises the same errors as :meth:`record`.
        """
        batch, outcomes = Changes(now), [Outcome()]
        writer = _NotingWriter(self._sql, self.layout)
        self._admission.looks_up_all = True
        try:
            with (
                self._translating("rehearse a packet"),
                self._engine.connect() as conn,
                conn.begin() as transaction,
            ):
                work = self._admit(conn, [arrival], batch, outcomes)
                known = _module_names(batch)
                self._evaluate(conn, work, batch)
                self._write(conn, work, batch, writer)
                transaction.rollback()
        finally:
            # The cached entries hold changes that were rolled back.
            self.catalog.clear()
            self._admission.looks_up_all = False
        return Rehearsal.of(batch, writer.noted, known, outcomes[0].error)

    def known(self, arrival: Arrival) -> Known:
        """The cached newest packet time and interval of the arrival's agent."""
        agent = self.catalog.get(arrival.packet.agent_name)
        return (None, None) if agent is None else (agent.newest, agent.interval)

    def newest(self, names: Collection[str]) -> dict[str, Known]:
        """Newest packet time and interval of agents, by name, read from the database.

        Names of unknown agents are left out.  Raises StoreError.
        """
        with translating("look up agents"), self._engine.connect() as conn:
            return ledger.newest_times(conn, names, self.catalog.epoch)

    def _translating(self, action: str) -> AbstractContextManager[None]:
        # A statement on which the server closes the connection must not be retried for ever.
        return translating(action, statement_limit=self._longest_statement)

    def _admit(
        self, conn: Connection, arrivals: Sequence[Arrival], batch: Changes, outcomes: list[Outcome]
    ) -> list[Work]:
        reference = self._read_reference(conn)
        return self._admission.admit(conn, arrivals, batch, outcomes, reference)

    def _read_reference(self, conn: Connection) -> Reference:
        now = monotonic()
        if self._reference is None or now - self._reference[1] > self._cache_seconds:
            self._reference = (read_reference(conn, self.layout, self._server_name), now)
        return self._reference[0]

    def _running_by(self, conn: Connection) -> int:
        """The id of this server's row in ``tserver``, or 0 if it has none yet.

        A new server creates its row after its first batch.
        """
        known = self._read_reference(conn).server_id
        return known or find_server(conn, self.layout, self._server_name) or 0

    # -- step 4: evaluating --

    def _evaluate(self, conn: Connection, work: Sequence[Work], batch: Changes) -> None:
        reference = self._read_reference(conn)
        batch.storm = reference.storm_protection
        left_out = self._learn(conn, work, batch, reference)
        created: set[int] = set()
        for agent, arrival, _, late in work:
            packet, time = arrival.packet, arrival.time
            if time is None:
                batch.refuse(agent, "", Refusal.PACKET_TIME, packet.timestamp)
            if (offset := packet.timezone_offset) and not is_valid_offset(offset):
                batch.refuse(agent, "", Refusal.OFFSET, offset)
            newest = not late and time is not None
            first = agent.created and agent.id not in created
            if first:
                created.add(agent.id)
                if group := self._agents.unknown_group(packet, reference):
                    batch.refuse(agent, "", Refusal.GROUP, group)
            if newest:
                self._agents.update(conn, agent, packet, reference)
                if agent.keep_alives:
                    self._evaluator.contact(batch, agent, "1")
            for module in packet.modules:
                entry = agent.by_raw.get(module.name)
                if entry is None:
                    reason = left_out.get((agent.id, module.name), Refusal.NOT_LEARNING)
                    self._evaluator.refuse_all(batch, agent, module, reason)
                    continue
                if entry.tags != module.tags and newest:
                    self._modules.update(conn, agent, entry, module)
                self._evaluator.module(
                    batch, agent, entry, module, arrival, reference.types, not newest
                )
            if newest and time is not None:
                self._modules.link(conn, agent, packet)
                self._sections.apply(
                    conn, agent, packet, time, self._text(time), reference, first, batch
                )
                agent.newest = max(agent.newest, time)
            if packet.events and not late and not agent.quiet:
                # Events have group 0 (all), except those of an agent's first packet, which have
                # the agent's group: as the Perl server does.
                _add_events(batch, agent, packet, agent.group_id if first else 0)

    def _learn(
        self, conn: Connection, work: Sequence[Work], batch: Changes, reference: Reference
    ) -> dict[tuple[int, str], Refusal]:
        """Create the packets' new modules before any value is evaluated.

        Returns why the others were not created, by agent id and module name as in the packet.
        """
        wanted: list[tuple[AgentEntry, Module]] = []
        seen: set[int] = set()
        for agent, arrival, _, _ in work:
            first = agent.created and agent.id not in seen
            seen.add(agent.id)
            for module in arrival.packet.modules:
                if module.name not in agent.by_raw:
                    # In mode 0 only the agent's first packet creates modules.
                    if agent.mode == 0 and not first and not _is_known(agent, module):
                        continue
                    wanted.append((agent, module))
        if not wanted:
            return {}
        created, left_out = self._modules.create(conn, wanted, reference, batch)
        batch.tally.new_modules += len(created)
        for agent, entry in created:
            batch.touch(agent, entry, CREATED)
            batch.recount[agent.id] = agent
        return left_out

    # -- step 5: writing --

    def _write(
        self,
        conn: Connection,
        work: Sequence[Work],
        batch: Changes,
        writer: Writer | None = None,
    ) -> None:
        writer = writer or self._writer
        self._check_exists(conn, work, batch)
        self._add_packets(conn, batch)
        writer.history(conn, batch)
        if batch.own_times:
            own_times = [(module_id,) for module_id in sorted(batch.own_times)]
            self._sql.ensure(conn, schema.own_times, ("module_id",), own_times)
        if batch.late:
            write_late(conn, writer, batch)
        if batch.counters:
            writer.counters(conn, batch)
        self._states.write(conn, batch, self._text, running_by=self._running_by(conn))
        if batch.addresses:
            self._sections.add_addresses(conn, batch.addresses)
        self._agent_rows(conn, work, batch)
        self._events.write(
            conn,
            batch.events,
            batch.now,
            self._text(batch.now),
            overtaken=batch.overtaken,
        )
        if work:
            touched = {item.agent.id: item.agent for item in work}
            ledger.raise_versions(conn, self._sql, touched.values())
        if batch.refusals:
            self._write_refused(conn, batch)

    def _write_refused(self, conn: Connection, batch: Changes) -> None:
        """Store the refused values; if only that fails, log it and store the packets nevertheless.

        Raises if the database ended the whole transaction, as after a deadlock.
        """
        if not self._stores_refused:
            return
        savepoint = conn.begin_nested()
        try:
            new = refused.write(conn, self._sql, batch.refusals, batch.now)
            savepoint.commit()
        except RAW as exc:
            error = classify(exc, action="store refused values")
            if isinstance(error, StoreConflict | StoreUnavailable):
                raise
            try:
                savepoint.rollback()
            except RAW:  # the transaction is gone, so a commit would store nothing
                raise error from exc
            if str(error) != self._refused_error:
                log.warning("%s", error)
            self._refused_error = str(error)
            return
        batch.tally.first_refused += [_first_refused(batch, each) for each in new]

    def _add_packets(self, conn: Connection, batch: Changes) -> None:
        try:
            ledger.add_packets(conn, self._sql, batch.ledger)
        except IntegrityError as error:
            if self._admission.looks_up_all:
                raise
            # Possible only for agents whose clock was ahead, so not every packet is looked up.
            self._admission.looks_up_all = True
            raise StoreConflict("a packet from before its agent's clock was corrected") from error

    def _check_exists(self, conn: Connection, work: Sequence[Work], batch: Changes) -> None:
        """Check that agents and modules of late packets still exist: no update would notice it."""
        if not batch.tally.late and not batch.late:
            return
        late = {item.agent.id for item in work if item.late}
        modules = {sample.module.id for sample in batch.late}
        if gone := self.catalog.gone(conn, late, modules):
            raise StoreConflict(
                f"{gone} agents or modules were deleted by another program meanwhile"
            )

    def _agent_rows(self, conn: Connection, work: Sequence[Work], batch: Changes) -> None:
        """Write each agent's time of last contact, and its counts of modules by status."""
        counted: dict[int, Row] = {}
        uncertain = []
        for agent in batch.recount.values():
            counts = agent.counts()
            if counts is None:
                uncertain.append(agent.id)
            else:
                counted[agent.id] = (*counts, sum(counts))
        now_text = self._text(batch.now)
        plain: list[Row] = []
        changed: list[Row] = []
        # A late packet does not change the time of last contact.
        heard = {
            item.agent.id: item.agent
            for item in work
            if not item.late and item.arrival.time is not None
        }
        for _, agent in sorted(heard.items()):
            row = (agent.id, now_text, self._text(agent.newest))
            counts_row = counted.pop(agent.id, None)
            if counts_row is None:
                plain.append(row)
            else:
                changed.append((*row, *counts_row))
        contact = ("id", "contact", "packet_contact")
        for keys, rows in (
            (contact, plain),
            ((*contact, *COUNT_KEYS), changed),
            (
                ("id", *COUNT_KEYS),
                [(agent_id, *counts) for agent_id, counts in counted.items()],
            ),
        ):
            if rows and self._sql.update(conn, schema.agent, keys, rows) < len(rows):
                raise StoreConflict("agents were deleted by another program meanwhile")
        recount(conn, self._sql, uncertain)


def _add_events(batch: Changes, agent: AgentEntry, packet: Packet, group_id: int) -> None:
    """Add the packet's events that are valid, up to the limit; the others count as refused."""
    events = list(packet_events(agent.id, group_id, packet.events))
    batch.events += events
    if left := len(packet.events) - len(events):
        is_full = len(events) >= MOST_OF_A_PACKET
        reason = Refusal.TOO_MANY_EVENTS if is_full else Refusal.EVENT
        batch.refuse(agent, "", reason, None, left)


def _first_refused(batch: Changes, noted: refused.Noted) -> FirstRefused:
    agent = entities.decode(batch.agents[noted.agent_id].name)
    return FirstRefused(agent, entities.decode(noted.module), noted.reason, noted.value)


def _is_known(agent: AgentEntry, module: Module) -> bool:
    return module_name(module.name) in agent.modules


# -- rehearsal: what recording a packet would do --


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What storing one packet would do.

    ``error``: why it would be rejected, or None.  ``duplicate``: it is stored already.
    ``late``: its agent has had a newer one.  ``agent`` is the agent's name, or None
    if the packet has no effect on an agent.  ``points`` include those that a late value restores.
    ``tally`` counts as :meth:`Recorder.record` does.
    """

    error: PacketError | None
    duplicate: bool
    late: bool
    agent: str | None
    new_agent: bool
    new_modules: tuple[str, ...]
    points: tuple[StoredPoint, ...]
    events: tuple[Event, ...]
    refused: tuple[RefusedPart, ...]
    tally: Tally

    @classmethod
    def of(
        cls,
        batch: Changes,
        noted: Sequence[Row],
        known: Mapping[int, str],
        error: PacketError | None,
    ) -> Self:
        """From the batch of this one packet and the history rows written for it.

        ``known`` are the modules that existed before, as :func:`_module_names` returned them.
        """
        names = _module_names(batch)
        agents = list(batch.agents.values())
        return cls(
            error=error,
            duplicate=batch.tally.duplicates > 0,
            late=batch.tally.late > 0,
            agent=entities.decode(agents[0].name) if agents else None,
            new_agent=batch.tally.new_agents > 0,
            new_modules=tuple(name for key, name in names.items() if key not in known),
            points=tuple(StoredPoint(names[key], time, value) for key, time, value in noted),
            events=tuple(batch.events),
            refused=tuple(
                RefusedPart(entities.decode(each.module), each.reason, each.value, each.times)
                for each in batch.refusals
            ),
            tally=batch.tally,
        )


class StoredPoint(NamedTuple):
    """A history row that would be stored; ``time`` in epoch seconds."""

    module: str
    time: int
    value: float | str


class RefusedPart(NamedTuple):
    """A value that would be refused, ``times`` times; ``module`` is '' for parts of no module."""

    module: str
    reason: Refusal
    value: str
    times: int


class _NotingWriter(Writer):
    """A writer that also keeps the history rows (module, time, value) that it writes."""

    def __init__(self, sql: Sql, layout: Layout) -> None:
        super().__init__(sql, layout)
        self.noted: list[Row] = []

    def history(self, conn: Connection, batch: Changes) -> None:
        """Write and keep all history rows of the batch except the late ones."""
        self.noted += [*batch.numbers, *batch.texts]
        super().history(conn, batch)

    def points(self, conn: Connection, table: Table, rows: Sequence[Row]) -> None:
        """Write and keep history rows at seconds that may have a row already."""
        self.noted += rows
        super().points(conn, table, rows)


def _module_names(batch: Changes) -> dict[int, str]:
    """The decoded names of all modules of the batch's agents, by id."""
    return {
        module.id: entities.decode(module.name)
        for agent in batch.agents.values()
        for module in agent.modules.values()
    }
