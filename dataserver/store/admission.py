"""Admits packets: the first steps of a transaction, before any value is evaluated.

1.  the agents' rows are found by name, and new agents created (locks: names, in order);
2.  the agents' versions are locked, in the order of ids; an agent that another server has
    changed since, or that was read too long ago, is read again;
3.  packets that are in the ledger already or too old are left out; an agent whose clock was
    corrected gets a newest time that is possible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple

from sqlalchemy import Connection

from dataserver.errors import PacketError, Reason, StoreConflict
from dataserver.model import Arrival, Packet
from dataserver.rules.events import agent_event
from dataserver.rules.times import SLACK, is_auto_time
from dataserver.store import ledger
from dataserver.store.agents import Agents
from dataserver.store.cache import AgentCache, AgentEntry
from dataserver.store.changes import Changes
from dataserver.store.clocks import Clocks, Note
from dataserver.store.reference import Reference
from dataserver.store.sections import Sections
from dataserver.store.sql import Sql

_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result for one packet; ``error`` says why it was not stored."""

    duplicate: bool = False
    late: bool = False
    error: PacketError | None = None


class Work(NamedTuple):
    """A packet with its agent, its place in the batch, and whether it is late."""

    agent: AgentEntry
    arrival: Arrival
    place: int
    late: bool


class Admission:
    """Finds, creates and locks agents, and selects the packets to evaluate, in one transaction."""

    def __init__(
        self,
        sql: Sql,
        catalog: AgentCache,
        agents: Agents,
        sections: Sections,
        text: Callable[[int], str],
        *,
        server_name: str,
        ledger_days: int,
        cache_seconds: float,
    ) -> None:
        self._sql = sql
        self._catalog = catalog
        self._agents = agents
        self._sections = sections
        self._text = text
        self._server_name = server_name
        self._ledger_days = ledger_days
        self._cache_seconds = cache_seconds
        self.clocks = Clocks()
        #: Look up every packet in the ledger, not only those no newer than their agent's newest.
        self.looks_up_all = False

    def admit(
        self,
        conn: Connection,
        arrivals: Sequence[Arrival],
        batch: Changes,
        outcomes: list[Outcome],
        reference: Reference,
    ) -> list[Work]:
        """The packets to evaluate, in order of agent and time; sets ``outcomes`` of the others."""
        waiting = self._store_servers(conn, arrivals, batch)
        self._resolve(conn, waiting, batch, outcomes, reference)
        pairs = []
        unwritten: set[int] = set()
        for index, arrival in waiting:
            agent = self._catalog.get(arrival.packet.agent_name)
            if agent is None or outcomes[index].error is not None:
                continue
            if agent.disabled and agent.mode != 2:
                batch.tally.ignored += 1
                unwritten.add(agent.id)
                continue
            pairs.append((agent, arrival, index))
        # In order of time; a packet with an unreadable time only creates modules, so it goes last.
        pairs.sort(key=_order)
        work = self._select(conn, pairs, batch, outcomes, unwritten)
        self._check_unwritten(conn, unwritten)
        return work

    def _store_servers(
        self, conn: Connection, arrivals: Sequence[Arrival], batch: Changes
    ) -> list[tuple[int, Arrival]]:
        """Store servers' own packets; returns the others with their positions."""
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
        batch: Changes,
        outcomes: list[Outcome],
        reference: Reference,
    ) -> None:
        """Find, create, lock and load the agents of the packets."""
        packets: dict[str, Packet] = {}
        for _, arrival in waiting:
            packets.setdefault(arrival.packet.agent_name, arrival.packet)
        unknown = [name for name in packets if self._catalog.get(name) is None]
        refused = {name: error for name in unknown if (error := self._agents.check_name(name))}
        if refused:
            unknown = [name for name in unknown if name not in refused]
        if unknown:
            self._catalog.find(conn, unknown)
            new = {name: packets[name] for name in unknown if self._catalog.get(name) is None}
            if new:
                refused |= self._agents.create(conn, new, reference, self._text(batch.now))
        for index, arrival in waiting:
            error = refused.get(arrival.packet.agent_name)
            if error is not None:
                outcomes[index] = Outcome(error=error)
        for name in packets:
            agent = self._catalog.get(name)
            if agent is not None:
                batch.agents[agent.id] = agent
        self._lock(conn, batch)
        created = [agent for agent in batch.agents.values() if agent.created]
        batch.tally.new_agents += len(created)
        for agent in created:
            event = agent_event(agent.id, agent.alias, self._server_name)
            batch.events.append(event._replace(group_id=agent.group_id))

    def _lock(self, conn: Connection, batch: Changes) -> None:
        """Step 2.  Raises StoreConflict if an agent was deleted."""
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
        gone = self._catalog.load(conn, stale, now) if stale else set()
        if gone:
            raise StoreConflict(f"{len(gone)} agents were deleted by another program meanwhile")
        for agent in stale:
            agent.version, agent.newest = versions[agent.id]
            # New to us but not to the Perl server: packets up to its last contact are not new.
            agent.newest = agent.newest or agent.packet_contact

    def _select(
        self,
        conn: Connection,
        pairs: Sequence[tuple[AgentEntry, Arrival, int]],
        batch: Changes,
        outcomes: list[Outcome],
        unwritten: set[int],
    ) -> list[Work]:
        """Step 3: leave out known packets, whose agents go to ``unwritten``, and too old ones."""
        suspects = [
            (agent.id, arrival)
            for agent, arrival, _ in pairs
            if self.looks_up_all or arrival.time is None or arrival.time <= agent.newest
        ]
        known = ledger.known_packets(conn, suspects) if suspects else set()
        self._judge_clocks(conn, [pair for pair in pairs if _key(*pair[:2]) not in known], batch)
        old = {
            agent.id
            for agent, arrival, _ in pairs
            if arrival.time is not None and arrival.time < batch.now - _DAY
        }
        folded = ledger.folded_until(conn, old) if old else {}
        arrived = batch.now
        work = []
        for agent, arrival, index in pairs:
            time = arrival.time
            key = _key(agent, arrival)
            if key in known:
                outcomes[index] = Outcome(duplicate=True)
                batch.tally.duplicates += 1
                unwritten.add(agent.id)
                continue
            error = self._too_old(agent, time, folded.get(agent.id, 0))
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

    def _judge_clocks(
        self, conn: Connection, new: Sequence[tuple[AgentEntry, Arrival, int]], batch: Changes
    ) -> None:
        """Find agents whose clock is ahead, and lower the newest time of those that were corrected.

        ``new`` are packets, in order of time, that are not in the ledger.
        """
        limit = batch.now + SLACK
        latest: dict[int, bool] = {}
        put_right: dict[int, AgentEntry] = {}
        for agent, arrival, _ in new:
            time = arrival.time
            if time is None:
                continue
            # If the packet has the file's time, that does not show the agent's clock.
            if time != arrival.arrived or not is_auto_time(arrival.packet.timestamp):
                latest[agent.id] = time > limit
            if time <= limit < agent.newest:
                put_right[agent.id] = agent
        self.clocks.hear(latest)
        if self.clocks.own_is_behind:
            return
        if any(latest.values()):
            batch.clocks += [
                Note(agent.alias, time - batch.now, put_right=False)
                for agent, arrival, _ in new
                if (time := arrival.time or 0) > limit
            ]
        if not put_right:
            return
        possible = ledger.newest_possible(conn, put_right, limit)
        for agent in put_right.values():
            contact = agent.packet_contact if agent.packet_contact <= limit else 0
            batch.clocks.append(Note(agent.alias, agent.newest - batch.now, put_right=True))
            agent.newest = possible.get(agent.id) or contact

    def _check_unwritten(self, conn: Connection, agents: set[int]) -> None:
        """Check that agents of packets that are acknowledged without a write still exist.

        A write to a row that was deleted matches nothing and is noticed; these packets write
        nothing, and the ledger of an agent that the console deleted a moment ago still has them.
        """
        if agents and (gone := self._catalog.gone(conn, agents, ())):
            raise StoreConflict(f"{gone} agents were deleted by another program meanwhile")

    def _too_old(self, agent: AgentEntry, time: int | None, folded: int) -> PacketError | None:
        """An error if the ledger, folded up to ``folded``, may not have the packet any more."""
        if time is None or time >= max(agent.newest - self._ledger_days * _DAY, folded):
            return None
        return PacketError(
            Reason.TOO_OLD,
            f"the packet is of {self._text(time)}, more than {self._ledger_days} days older than "
            f"its agent's newest one, of {self._text(agent.newest)}",
        )


def _key(agent: AgentEntry, arrival: Arrival) -> tuple[int, int, bytes]:
    return agent.id, arrival.time or 0, arrival.packet.digest


def _order(item: tuple[AgentEntry, Arrival, int]) -> tuple[int, float, int, bytes]:
    agent, arrival, _ = item
    time = float("inf") if arrival.time is None else arrival.time
    return agent.id, time, arrival.number, arrival.packet.digest
