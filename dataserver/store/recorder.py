"""Recording a batch of packets: one transaction, from the agents' locks to the ledger.

The steps, in the order in which locks are taken:

1.  the agents' rows are found by name, new agents created (locks: names, in order);
2.  the agents' versions are locked, in the order of ids; an agent that another server
    touched since, or that was read too long ago, is read again;
3.  packets that the ledger knows are put aside, packets that are too old as well;
4.  each agent's packets are evaluated in order of time: what is new is gathered;
5.  everything is written in bulk: history, late values, counters, states, agents,
    the ledger, the versions;
6.  commit.  When anything fails, the agents are forgotten and the transaction is void.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import tzinfo
from time import monotonic
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from dataserver.errors import PacketError, Reason, StoreConflict
from dataserver.events import agent_event, packet_events
from dataserver.failpoints import reach
from dataserver.model import Arrival, Module, Packet
from dataserver.store import ledger, schema
from dataserver.store.batch import CREATED, Batch, Tally, Writer
from dataserver.store.catalog import AgentEntry, Catalog
from dataserver.store.counts import recount
from dataserver.store.errors import translating
from dataserver.store.evaluate import Evaluator
from dataserver.store.events import EventLog
from dataserver.store.late import write_late
from dataserver.store.learning import Learner, Rules, module_name
from dataserver.store.probe import Layout
from dataserver.store.reference import Reference, read_reference
from dataserver.store.rehearsal import NotingWriter, Rehearsal, module_names
from dataserver.store.sections import Sections
from dataserver.store.sql import Sql
from dataserver.times import local_text

#: An agent's newest packet time (epoch seconds) and interval (seconds), None: not known.
Known = tuple[int | None, int | None]

_NEVER = "1970-01-01 00:00:00"
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one packet; ``error`` says why it was not taken in."""

    duplicate: bool = False
    late: bool = False
    error: PacketError | None = None


class Work(NamedTuple):
    """A packet with its agent, its place in the batch, and whether it is late."""

    agent: AgentEntry
    arrival: Arrival
    place: int
    late: bool


class Recorder:
    """Records batches into one database; not for several threads at once."""

    def __init__(
        self,
        engine: Engine,
        layout: Layout,
        *,
        zone: tzinfo,
        rules: Rules,
        longest_text: int,
        longest_statement: int | None = None,
        max_ahead: int = 86_400,
        ledger_days: int = 7,
        cache_seconds: float = 60.0,
    ) -> None:
        self._engine = engine
        self._longest_statement = longest_statement
        self._server_name = rules.server_name
        self._ledger_days = ledger_days
        self._cache_seconds = cache_seconds
        self._layout = layout
        self._sql = Sql(engine.dialect)
        self._writer = Writer(self._sql, layout)
        self._events = EventLog(self._sql, layout)
        self.catalog = Catalog(zone, layout)
        self._learner = Learner(self._sql, layout, self.catalog, rules)
        self._sections = Sections(self._sql, layout)
        self._evaluator = Evaluator(zone, longest_text, max_ahead)
        self._reference: tuple[Reference, float] | None = None
        self._text: Callable[[int], str] = lambda time: local_text(time, zone) if time else _NEVER

    def record(self, arrivals: Sequence[Arrival], now: int) -> tuple[list[Outcome], Tally]:
        """Take in ``arrivals`` in one transaction; ``now`` in epoch seconds.

        Returns an outcome for each, in their order, and what was done in all.
        Raises StoreConflict, StoreUnavailable, StoreRefused: nothing was taken in.
        """
        self.catalog.trim()
        batch = Batch(now)
        outcomes = [Outcome()] * len(arrivals)
        try:
            with self._translating("store packets"), self._engine.begin() as conn:
                work = self._prepare(conn, arrivals, batch, outcomes)
                self._evaluate(conn, work, batch)
                self._write(conn, work, batch)
                reach("before-commit")
        except BaseException:
            # Entries were changed in place, and the transaction may or may not be there.
            self.catalog.forget(batch.agents.values())
            raise
        for agent in batch.agents.values():
            agent.created = False
        reach("after-commit")
        return outcomes, batch.tally

    def rehearse(self, arrival: Arrival, now: int) -> Rehearsal:
        """What :meth:`record` would do with this packet alone: done, told and rolled back.

        Raises as it does.
        """
        batch, outcomes = Batch(now), [Outcome()]
        writer = NotingWriter(self._sql, self._layout)
        try:
            with (
                self._translating("rehearse a packet"),
                self._engine.connect() as conn,
                conn.begin() as transaction,
            ):
                work = self._prepare(conn, [arrival], batch, outcomes)
                known = module_names(batch)
                self._evaluate(conn, work, batch)
                self._write(conn, work, batch, writer)
                transaction.rollback()
        finally:
            # What it holds of this agent is not there after all.
            self.catalog.clear()
        return Rehearsal.of(batch, writer.noted, known, outcomes[0].error)

    def known(self, arrival: Arrival) -> Known:
        """The newest packet time and interval of the arrival's agent, as far as is remembered."""
        agent = self.catalog.get(arrival.packet.agent_name)
        return (None, None) if agent is None else (agent.newest, agent.interval)

    def newest(self, names: Collection[str]) -> dict[str, Known]:
        """The same from the database, for the agents that are there.  Raises StoreError."""
        with translating("look up agents"), self._engine.connect() as conn:
            return ledger.newest_times(conn, names, self.catalog.epoch)

    def _translating(self, action: str) -> AbstractContextManager[None]:
        # Not even a statement that the database hangs up on is to be tried for ever.
        return translating(action, statement_limit=self._longest_statement)

    # -- steps 1 to 3 ----------------------------------------------------------

    def _prepare(
        self, conn: Connection, arrivals: Sequence[Arrival], batch: Batch, outcomes: list[Outcome]
    ) -> list[Work]:
        reference = self._read_reference(conn)
        waiting = self._servers_own(conn, arrivals, batch)
        self._resolve(conn, waiting, batch, outcomes, reference)
        pairs = []
        for index, arrival in waiting:
            agent = self.catalog.get(arrival.packet.agent_name)
            if agent is None or outcomes[index].error is not None:
                continue
            if agent.disabled and agent.mode != 2:
                batch.tally.ignored += 1
                continue
            pairs.append((agent, arrival, index))
        # In order of time; a packet whose time cannot be read only creates, so it goes last.
        pairs.sort(key=_order)
        return self._sift(conn, pairs, batch, outcomes)

    def _read_reference(self, conn: Connection) -> Reference:
        now = monotonic()
        if self._reference is None or now - self._reference[1] > self._cache_seconds:
            self._reference = (read_reference(conn, self._layout), now)
        return self._reference[0]

    def _servers_own(
        self, conn: Connection, arrivals: Sequence[Arrival], batch: Batch
    ) -> list[tuple[int, Arrival]]:
        """Deal with servers' own packets; the rest, with their places."""
        rest = []
        for index, arrival in enumerate(arrivals):
            if arrival.packet.server_name:
                self._sections.server(conn, arrival.packet, batch.now, self._text(batch.now))
                batch.tally.packets += 1
            else:
                rest.append((index, arrival))
        return rest

    def _resolve(
        self,
        conn: Connection,
        waiting: Sequence[tuple[int, Arrival]],
        batch: Batch,
        outcomes: list[Outcome],
        reference: Reference,
    ) -> None:
        """Find, create, lock and load the agents of the packets."""
        packets: dict[str, Packet] = {}
        for _, arrival in waiting:
            packets.setdefault(arrival.packet.agent_name, arrival.packet)
        unknown = [name for name in packets if self.catalog.get(name) is None]
        refused = {name: error for name in unknown if (error := self._learner.check_name(name))}
        if refused:
            unknown = [name for name in unknown if name not in refused]
        if unknown:
            self.catalog.find(conn, unknown)
            new = {name: packets[name] for name in unknown if self.catalog.get(name) is None}
            if new:
                refused |= self._learner.create_agents(conn, new, reference, self._text(batch.now))
        for index, arrival in waiting:
            error = refused.get(arrival.packet.agent_name)
            if error is not None:
                outcomes[index] = Outcome(error=error)
        for name in packets:
            agent = self.catalog.get(name)
            if agent is not None:
                batch.agents[agent.id] = agent
        self._lock(conn, batch)
        created = [agent for agent in batch.agents.values() if agent.created]
        batch.tally.new_agents += len(created)
        batch.events += [agent_event(a.id, a.alias, self._server_name) for a in created]

    def _lock(self, conn: Connection, batch: Batch) -> None:
        """Step 2; an agent that is gone makes the whole transaction start again."""
        if not batch.agents:
            return
        versions = ledger.lock_versions(conn, self._sql, list(batch.agents))
        now = monotonic()
        old = now - self._cache_seconds
        stale = [
            agent
            for agent in batch.agents.values()
            if agent.version != versions[agent.id][0] or agent.loaded < old
        ]
        gone = self.catalog.load(conn, stale, now) if stale else set()
        if gone:
            raise StoreConflict(f"{len(gone)} agents were deleted by somebody else meanwhile")
        for agent in stale:
            agent.version, agent.newest = versions[agent.id]
            # First met by us, but known to the Perl server: what it had is not new.
            agent.newest = agent.newest or agent.packet_contact

    def _sift(
        self,
        conn: Connection,
        pairs: Sequence[tuple[AgentEntry, Arrival, int]],
        batch: Batch,
        outcomes: list[Outcome],
    ) -> list[Work]:
        """Step 3: without what is known already and what is too old."""
        suspects = [
            (agent.id, arrival)
            for agent, arrival, _ in pairs
            if arrival.time is None or arrival.time <= agent.newest
        ]
        known = ledger.known_packets(conn, suspects) if suspects else set()
        arrived = batch.now
        work = []
        for agent, arrival, index in pairs:
            time = arrival.time
            key = (agent.id, time or 0, arrival.packet.digest)
            if key in known:
                outcomes[index] = Outcome(duplicate=True)
                batch.tally.duplicates += 1
                continue
            error = self._too_old(agent, time)
            if error is not None:
                outcomes[index] = Outcome(error=error)
                continue
            known.add(key)
            batch.ledger.append((*key, self._server_name, arrived))
            late = time is not None and time < agent.newest
            work.append(Work(agent, arrival, index, late))
            batch.tally.packets += 1
            if late:
                outcomes[index] = Outcome(late=True)
                batch.tally.late += 1
        return work

    def _too_old(self, agent: AgentEntry, time: int | None) -> PacketError | None:
        if time is None or time >= agent.newest - self._ledger_days * _DAY:
            return None
        return PacketError(
            Reason.TOO_OLD,
            f"the packet is of {self._text(time)}, more than {self._ledger_days} days older than "
            f"its agent's newest one, of {self._text(agent.newest)}",
        )

    # -- step 4 ----------------------------------------------------------------

    def _evaluate(self, conn: Connection, work: Sequence[Work], batch: Batch) -> None:
        reference = self._read_reference(conn)
        self._learn(conn, work, batch, reference)
        for agent, arrival, _, late in work:
            packet, time = arrival.packet, arrival.time
            newest = not late and time is not None
            if newest:
                self._learner.update_agent(conn, agent, packet)
                if agent.keep_alives:
                    self._evaluator.contact(batch, agent, "1")
            for module in packet.modules:
                entry = agent.by_raw.get(module.name)
                if entry is None:
                    self._evaluator.refuse_all(batch, module)
                    continue
                if entry.tags != module.tags and newest:
                    self._learner.update_module(conn, agent, entry, module)
                self._evaluator.module(
                    batch, agent, entry, module, arrival, reference.types, not newest
                )
            if newest and time is not None:
                self._learner.link_modules(conn, agent, packet)
                first = agent.created and agent.newest == 0
                self._sections.apply(
                    conn, agent, packet, time, self._text(time), reference, first, batch
                )
                agent.newest = max(agent.newest, time)
            if packet.events and not late:
                batch.events += packet_events(agent.id, packet.events)

    def _learn(
        self, conn: Connection, work: Sequence[Work], batch: Batch, reference: Reference
    ) -> None:
        """Create the modules that the packets bring, before any value is looked at."""
        wanted: list[tuple[AgentEntry, Module]] = []
        seen: set[int] = set()
        for agent, arrival, _, _ in work:
            first = agent.created and agent.id not in seen
            seen.add(agent.id)
            for module in arrival.packet.modules:
                if module.name not in agent.by_raw:
                    # Mode 0 does not learn, but for what the first packet brings.
                    if agent.mode == 0 and not first and not _is_known(agent, module):
                        continue
                    wanted.append((agent, module))
        if wanted:
            created = self._learner.create_modules(conn, wanted, reference)
            batch.tally.new_modules += len(created)
            for agent, entry in created:
                batch.touch(agent, entry, CREATED)
                batch.fresh.add(entry.id)
                batch.recount.add(agent.id)

    # -- step 5 ----------------------------------------------------------------

    def _write(
        self,
        conn: Connection,
        work: Sequence[Work],
        batch: Batch,
        writer: Writer | None = None,
    ) -> None:
        writer = writer or self._writer
        self._look_for_gone(conn, work, batch)
        ledger.add_packets(conn, self._sql, batch.ledger)
        writer.history(conn, batch)
        if batch.own_times:
            own_times = [(module_id,) for module_id in sorted(batch.own_times)]
            self._sql.ensure(conn, schema.own_times, ("module_id",), own_times)
        if batch.late:
            write_late(conn, writer, batch)
        if batch.counters:
            writer.counters(conn, batch)
        writer.states(conn, batch, self._text)
        if batch.addresses:
            self._sections.add_addresses(conn, batch.addresses)
        self._contacts(conn, work, batch)
        recount(conn, self._sql, batch.recount)
        self._events.write(conn, batch.events, batch.now, self._text(batch.now), fresh=batch.fresh)
        if work:
            touched = {item.agent.id: item.agent for item in work}
            ledger.raise_versions(conn, self._sql, touched.values())

    def _look_for_gone(self, conn: Connection, work: Sequence[Work], batch: Batch) -> None:
        """What is late updates no row that would not be there; so it is asked for."""
        if not batch.tally.late and not batch.late:
            return
        late = {item.agent.id for item in work if item.late}
        modules = {sample.module.id for sample in batch.late}
        if gone := self.catalog.gone(conn, late, modules):
            raise StoreConflict(f"{gone} agents or modules were deleted by somebody else meanwhile")

    def _contacts(self, conn: Connection, work: Sequence[Work], batch: Batch) -> None:
        """When each agent was last heard of; a late packet says nothing about that."""
        heard = {
            item.agent.id: item.agent
            for item in work
            if not item.late and item.arrival.time is not None
        }
        if not heard:
            return
        now_text = self._text(batch.now)
        rows = [
            (agent.id, now_text, self._text(agent.newest)) for _, agent in sorted(heard.items())
        ]
        keys = ("id", "contact", "packet_contact")
        if self._sql.update(conn, schema.agent, keys, rows) < len(rows):
            raise StoreConflict("agents were deleted by somebody else meanwhile")


def _order(item: tuple[AgentEntry, Arrival, int]) -> tuple[int, float, int, bytes]:
    agent, arrival, _ = item
    time = float("inf") if arrival.time is None else arrival.time
    return agent.id, time, arrival.number, arrival.packet.digest


def _is_known(agent: AgentEntry, module: Module) -> bool:
    return module_name(module.name) in agent.modules
