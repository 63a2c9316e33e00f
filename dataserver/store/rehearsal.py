"""What recording a packet would do, told without doing it: the record and the noting writer.

The rehearsal itself is :meth:`dataserver.store.recorder.Recorder.rehearse`: it goes the same
way as recording, to the last statement before the commit, so that what it tells is what
would be stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from sqlalchemy import Connection, Table

from dataserver import entities
from dataserver.errors import PacketError
from dataserver.events import Event
from dataserver.refusals import Refusal
from dataserver.store.batch import Batch, Tally, Writer
from dataserver.store.layout import Layout
from dataserver.store.sql import Row, Sql


class StoredPoint(NamedTuple):
    """A value that would go into history; ``time`` in epoch seconds."""

    module: str
    time: int
    value: float | str


class RefusedPart(NamedTuple):
    """What would be refused, so many times; ``module`` '' for what is the packet's own."""

    module: str
    reason: Refusal
    value: str
    times: int


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What would become of one packet.

    ``error``: it would be set aside, and why; ``duplicate``: it is stored already;
    ``late``: its agent has had a newer one.  ``agent`` is the agent's name as it would be
    known, None where there is none.  ``points`` include those that a late value restores.
    ``tally`` counts as recording does.
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
        batch: Batch,
        noted: Sequence[Row],
        known: Mapping[int, str],
        error: PacketError | None,
    ) -> Self:
        """From the batch of this one packet and the history rows that were noted.

        ``known`` are the modules that were there before, as :func:`module_names` gave them.
        """
        names = module_names(batch)
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


def module_names(batch: Batch) -> dict[int, str]:
    """The names, as people read them, of all modules of the batch's agents, by id."""
    return {
        module.id: entities.decode(module.name)
        for agent in batch.agents.values()
        for module in agent.modules.values()
    }


class NotingWriter(Writer):
    """Writes as ever, and notes the rows (module, time, value) that go into history."""

    def __init__(self, sql: Sql, layout: Layout) -> None:
        super().__init__(sql, layout)
        self.noted: list[Row] = []

    def history(self, conn: Connection, batch: Batch) -> None:
        """All history rows of the batch but the late ones."""
        self.noted += [*batch.numbers, *batch.texts]
        super().history(conn, batch)

    def points(self, conn: Connection, table: Table, rows: Sequence[Row]) -> None:
        """History rows whose second may be taken."""
        self.noted += rows
        super().points(conn, table, rows)
