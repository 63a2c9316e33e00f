"""Pages of events from the newest back: none left out, none twice, and never a whole table read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import delete, event, insert

from dataserver.rules import entities
from dataserver.store import schema
from dataserver.store.database import open_readonly
from dataserver.store.read import events
from dataserver.store.read.events import EventList, EventPage, Wanted
from tests.support.databases import PANDORA, SQLITE, Database
from tests.support.kinds import database_of
from tests.support.monitored import NOW, Monitored
from tests.support.randomness import seeded

DAY = 86_400
ALL = Wanted()
#: Events that a test has looked at for one page; there are several times as many.
LOOK = 20

database = database_of(SQLITE, PANDORA)


class Told:
    """One database with events, and a reader of them."""

    def __init__(self, database: Database) -> None:
        self.store = Monitored(database)
        self.engine = open_readonly(database.url, home=database.home)

    def fill(self, *rows: dict[str, Any]) -> None:
        """Events of these ids; whatever else a row does not say is the same of all."""
        whole = [
            {"time": NOW, "type": "system", "severity": 2, "text": "it", **row} for row in rows
        ]
        keys = {key for row in whole for key in row}
        assert all(row.keys() == keys for row in whole)
        with self.store.engine.begin() as conn:
            conn.execute(insert(schema.event), whole)

    def page(
        self,
        wanted: Wanted = ALL,
        before: int | None = None,
        limit: int = 5,
        since: int = NOW - DAY,
    ) -> EventPage:
        return EventList(self.engine, self.store.layout).page(wanted, before, limit, since)

    def all(self, wanted: Wanted = ALL, limit: int = 5, since: int = NOW - DAY) -> list[int]:
        """The ids of all pages, the newest first."""
        found: list[int] = []
        before = None
        while True:
            page = self.page(wanted, before, limit, since)
            assert len(page.events) <= limit
            found += [event.id for event in page.events]
            if page.older is None:
                return found
            assert before is None or page.older < before
            before = page.older


@pytest.fixture
def told(database: Database) -> Iterator[Told]:
    told = Told(database)
    yield told
    told.engine.dispose()


@pytest.fixture
def looks_at_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LOOK", LOOK)


def ids(page: EventPage) -> list[int]:
    return [event.id for event in page.events]


def test_an_event_is_told_as_people_read_it(told: Told) -> None:
    agent = told.store.agent(entities.encode("web <1>"))
    module = told.store.module(agent, entities.encode("Load avg"))
    told.fill({"agent_id": agent, "module_id": module, "text": entities.encode("a <b> & 'c'")})
    [found] = told.page().events
    assert (found.agent, found.module, found.text) == ("web <1>", "Load avg", "a <b> & 'c'")


def test_pages_go_back_over_holes_in_the_ids(told: Told) -> None:
    some = seeded("holes in the ids")
    keys = sorted(some.sample(range(1, 10_000), 60))
    told.fill(*({"id": key} for key in keys))
    for limit in (1, 2, 7, 59, 60, 61):
        assert told.all(limit=limit) == keys[::-1]
    assert ids(told.page(before=keys[30], limit=3)) == [keys[29], keys[28], keys[27]]
    # The id that is gone on from may be gone itself.
    assert ids(told.page(before=keys[30] + 1, limit=1)) == [keys[30]]


def test_a_page_that_is_just_full_has_none_after_it(told: Told) -> None:
    told.fill(*({"id": key} for key in (1, 2, 3)))
    assert told.page(limit=3).older is None
    assert told.page(limit=2).older == 2


def test_there_may_be_no_event_at_all(told: Told) -> None:
    assert told.page() == EventPage((), None)
    told.fill({"id": 5})
    assert (
        told.page(since=NOW + 1)
        == told.page(before=5)
        == told.page(before=0)
        == EventPage((), None)
    )
    assert told.page(before=2**63 - 1).events == told.page(since=0).events
    assert len(told.page(since=0).events) == 1


def test_what_is_older_than_asked_for_is_left_out(told: Told) -> None:
    # A clock that went wrong for a moment: in the middle by id, at the end by time.
    told.fill(
        *({"id": key, "time": NOW - 100 if key == 7 else NOW - 20 + key} for key in range(1, 20))
    )
    assert told.all(since=NOW - 15) == [key for key in range(19, 4, -1) if key != 7]


@pytest.mark.usefixtures("looks_at_few")
def test_each_filter_gives_what_fits_it_over_all_pages(told: Told) -> None:
    agent, other = told.store.agent(), told.store.agent("other")
    some = seeded("filters")
    types = ("system", "error", "new_agent", "ncm")
    rows = [
        {
            "id": key * 3,
            "time": NOW - 1000 + key,
            "agent_id": some.choice((agent, other, 0, 77)),
            "module_id": some.choice((0, 5, 6)),
            "type": some.choice(types),
            "severity": some.randrange(7),
            "status": some.randrange(3),
        }
        for key in range(1, 101)
    ]
    # Rare, and far from the newest.
    rows[3] |= {"type": "alert_fired", "severity": 6}
    told.fill(*rows)
    for wanted, fits in [
        (ALL, lambda row: True),
        (Wanted(agent_id=agent), lambda row: row["agent_id"] == agent),
        (Wanted(agent_id=0), lambda row: row["agent_id"] == 0),
        (Wanted(agent_id=12345), lambda row: False),
        (Wanted(module_id=5), lambda row: row["module_id"] == 5),
        (
            Wanted(agent_id=other, module_id=6, open_only=True),
            lambda row: (row["agent_id"], row["module_id"]) == (other, 6) and row["status"] != 1,
        ),
        (Wanted(types=frozenset({"error", "ncm"})), lambda row: row["type"] in ("error", "ncm")),
        (Wanted(types=frozenset({"alert_fired"})), lambda row: row["type"] == "alert_fired"),
        (Wanted(types=frozenset({"unknown"})), lambda row: False),
        (Wanted(severities=frozenset({6, 0})), lambda row: row["severity"] in (6, 0)),
        (Wanted(open_only=True), lambda row: row["status"] != 1),
    ]:
        for since in (0, NOW - 950, NOW - 905):
            fitting = [row["id"] for row in rows if fits(row) and row["time"] >= since]
            assert told.all(wanted, limit=6, since=since) == fitting[::-1]


@pytest.mark.usefixtures("looks_at_few")
def test_a_filter_that_fits_few_looks_at_a_bounded_number_and_goes_on_from_there(
    told: Told,
) -> None:
    told.fill(*({"id": key, "type": "ncm" if key == 1 else "system"} for key in range(1, 101)))
    wanted = Wanted(types=frozenset({"ncm"}))
    page = told.page(wanted)
    assert page == EventPage((), 100 - LOOK + 1)
    assert told.page(wanted, before=page.older) == EventPage((), 100 - 2 * LOOK + 1)
    # The last piece has it, and there is nothing below.
    last = told.page(wanted, before=LOOK + 1)
    assert (ids(last), last.older) == ([1], None)


@pytest.mark.usefixtures("looks_at_few")
def test_what_lies_before_the_time_is_not_gone_through(told: Told) -> None:
    told.fill(*({"id": key, "time": NOW if key > 50 else NOW - 2 * DAY} for key in range(1, 61)))
    wanted = Wanted(types=frozenset({"ncm"}))
    assert told.page(wanted) == EventPage((), None)


# Only SQLite tells how much it does.
@pytest.mark.parametrize("database", [SQLITE], indirect=True)
def test_no_statement_reads_all_rows_of_a_filter_that_fits_none(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wanted, steps in _steps(told, monkeypatch):
        assert steps * 10 < 20_000, wanted


def _steps(told: Told, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Wanted, int]]:
    """How many tens of steps each of some filters takes among 20,000 events that none fits."""
    told.fill(*({"id": key} for key in range(1, 20_001)))
    monkeypatch.setattr(events, "LOOK", 100)

    for wanted in (
        Wanted(types=frozenset({"ncm"})),
        Wanted(severities=frozenset({6})),
        Wanted(agent_id=5),
        Wanted(module_id=5, open_only=True),
        Wanted(agent_id=5, types=frozenset({"ncm"})),
    ):
        seen: list[None] = []

        def attach(raw: Any, *_: Any, seen: list[None] = seen) -> None:
            raw.set_progress_handler(lambda: seen.append(None), 10)

        event.listen(told.engine, "checkout", attach)
        assert told.page(wanted).events == ()
        event.remove(told.engine, "checkout", attach)
        yield wanted, len(seen)


def test_an_agent_that_is_gone_is_not_named(told: Told) -> None:
    agent = told.store.agent()
    told.fill({"agent_id": agent, "module_id": 99})
    with told.store.engine.begin() as conn:
        conn.execute(delete(schema.agent).where(schema.agent.c.id == agent))
    [found] = told.page(Wanted(agent_id=agent)).events
    assert (found.agent, found.alias, found.module) == (None, None, None)
