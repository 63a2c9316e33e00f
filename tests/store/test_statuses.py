"""Statuses, their events and the agents' counts, through the recorder, in every kind of store."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text, update

from dataserver.errors import StoreConflict
from dataserver.rules import entities
from dataserver.rules.status import Status
from dataserver.store import schema
from dataserver.store.counts import recount_flagged
from dataserver.store.sql import Sql
from tests.support import packets
from tests.support.databases import PANDORA, SQLITE, Database
from tests.support.ingest import NOW, Ingest, arrival
from tests.support.kinds import database_of
from tests.support.packets import START, module

Tags = dict[str, object]
LIMITS: Tags = {"min_warning": 50, "max_warning": 80, "min_critical": 80}

# Pandora's tables, for which a MariaDB database of our own has the same columns.
database = database_of(SQLITE, PANDORA)


def packet(minute: int, content: str = "", agent: str = "one", **root: str) -> bytes:
    """A packet ``minute`` minutes after the start."""
    return packets.packet(agent, content, time=START + 60 * minute, os_name="Linux", **root)


def plain(value: str, tags: Tags = LIMITS, name: str = "load", kind: str = "generic_data") -> str:
    return module(name, value, kind, **tags)


class Console:
    """Looks into the database as the console does, and changes what an operator changes."""

    def __init__(self, database: Database) -> None:
        self.server = Ingest(database)
        self.engine = database.engine()

    def take(self, *contents: bytes) -> None:
        """Take in a batch, again when it was in conflict."""
        for _ in range(5):
            try:
                self.server.record([arrival(content) for content in contents])
            except StoreConflict:
                continue
            return
        raise AssertionError("in conflict for ever")

    def set(self, table: Any, name: str = "", **values: Any) -> None:
        """Change a row, and let the server notice."""
        c = table.c
        with self.engine.begin() as conn:
            where = [c.name == name] if name else []
            assert conn.execute(update(table).where(*where).values(values)).rowcount
        self.server.recorder.catalog.clear()

    def events(self, *kinds: str) -> list[tuple[str, int, str, bool]]:
        """(type, severity, data, validated) of those types, all but new_agent without any."""
        c = schema.event.c
        query = select(c.type, c.severity, c.data, c.status).order_by(c.id)
        query = query.where(c.type.in_(kinds) if kinds else c.type != "new_agent")
        with self.engine.connect() as conn:
            return [(row[0], row[1], row[2], bool(row[3])) for row in conn.execute(query)]

    def rows(self, *columns: Any) -> list[tuple[Any, ...]]:
        with self.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(select(*columns))]

    def status(self, name: str = "load") -> tuple[int, int]:
        """Effective status and last status of a module."""
        m, s = schema.module.c, schema.state.c
        query = select(s.status, s.last_status).where(s.module_id == m.id, m.name == name)
        with self.engine.connect() as conn:
            row = conn.execute(query).one()
        return row[0], row[1]

    def counts(self, agent: str = "one") -> tuple[int, ...]:
        """Normal, critical, warning, unknown, not initialised, total."""
        c = schema.agent.c
        query = select(
            c.normal_count,
            c.critical_count,
            c.warning_count,
            c.unknown_count,
            c.notinit_count,
            c.total_count,
        ).where(c.name == agent)
        with self.engine.connect() as conn:
            return tuple(conn.execute(query).one())


@pytest.fixture
def console(database: Database) -> Console:
    return Console(database)


# -- events ----------------------------------------------------------------------


def test_a_new_event_validates_the_ones_before_it(console: Console) -> None:
    console.take(packet(0, plain("90")))
    assert console.events() == [("going_up_critical", 4, "90", False)]
    console.take(packet(5, plain("60.25")))
    assert console.events() == [
        ("going_up_critical", 4, "90", True),
        ("going_down_warning", 3, "60.2", False),
    ]
    console.take(packet(10, plain("1")))
    assert console.events() == [
        ("going_up_critical", 4, "90", True),
        ("going_down_warning", 3, "60.2", True),
        ("going_down_normal", 2, "1", True),
    ]
    e = schema.event.c
    assert {row[0] for row in console.rows(e.ack_utimestamp) if row[0]} == {NOW}


def test_of_several_in_one_batch_only_the_last_is_open(console: Console) -> None:
    console.take(*(packet(5 * i, plain(value)) for i, value in enumerate(["90", "60", "95"])))
    assert [(kind, closed) for kind, _, _, closed in console.events()] == [
        ("going_up_critical", True),
        ("going_down_warning", True),
        ("going_up_critical", False),
    ]


def test_an_event_has_its_modules_group_tags_and_instructions(console: Console) -> None:
    with console.engine.begin() as conn:
        names = ("disk&#x20;space", "night")
        conn.execute(insert(schema.tag), [{"name": name} for name in names])
    tags = {"critical_instructions": "call <me>", "tags": "night,disk space"}
    console.take(packet(0, plain("90", LIMITS | tags), group="Servers"))
    e, g = schema.event.c, schema.group.c
    told = console.rows(e.group_id, e.tags, e.critical_instructions, e.text)[1]
    groups = {name: group_id for group_id, name in console.rows(g.id, g.name)}
    assert told == (
        groups["Servers"],
        "disk&#x20;space,night",
        "call <me>",
        "Module&#x20;&#039;load&#039;&#x20;is&#x20;going&#x20;to&#x20;CRITICAL&#x20;&#40;90&#41;",
    )


@pytest.mark.parametrize("table", [schema.agent, schema.module], ids=["agent", "module"])
def test_of_a_quiet_one_nobody_is_told_but_its_status_is_kept(table: Any, console: Console) -> None:
    console.take(packet(0, plain("1")))
    console.set(table, quiet=1)
    console.take(packet(5, plain("90")))
    assert (console.events(), console.status(), console.counts()[1]) == ([], (1, 1), 1)
    console.set(table, quiet=0)
    console.take(packet(10, plain("1")))
    assert [event[0] for event in console.events()] == ["going_down_normal"]


def test_what_a_quiet_module_overtook_is_validated(console: Console) -> None:
    console.take(packet(0, plain("90")))
    console.set(schema.module, quiet=1)
    console.take(packet(5, plain("1")))
    assert console.events() == [("going_up_critical", 4, "90", True)]


def test_who_is_not_told_of_unknown_is_not_told_of_the_return(console: Console) -> None:
    console.take(packet(0, plain("1")), packet(5, plain("1")))
    console.set(schema.module, disabled_types_event='{"going_unknown": 1}')
    for minute, value in ((10, "1"), (15, "90")):
        console.set(schema.state, status=Status.UNKNOWN, last_status=Status.UNKNOWN)
        console.take(packet(minute, plain(value)))
    assert [event[0] for event in console.events()] == ["going_up_critical"]


def test_a_critical_module_that_returns_untold_keeps_its_open_event(console: Console) -> None:
    console.take(packet(0, plain("90")))
    console.set(schema.module, disabled_types_event='{"going_unknown": 1}')
    console.set(schema.state, status=Status.UNKNOWN, last_status=Status.UNKNOWN)
    console.take(packet(5, plain("95")))
    assert console.events() == [("going_up_critical", 4, "90", False)]
    console.take(packet(10, plain("1")))
    assert [event[0::3] for event in console.events()] == [
        ("going_up_critical", True),
        ("going_down_normal", True),
    ]


def test_a_late_packet_fires_none(console: Console) -> None:
    console.take(packet(60, plain("1")))
    secret = base64.b64encode(json.dumps({"data": "late", "severity": 4}).encode()).decode()
    late = f"<events><event>{secret}</event></events>"
    console.take(packet(30, plain("90") + plain("95", name="other") + late))
    assert console.events() == []
    assert (console.status(), console.status("other")) == ((0, 0), (1, 1))
    assert console.counts() == (1, 1, 0, 0, 0, 2)


def test_a_resent_packet_fires_none(console: Console) -> None:
    for _ in range(3):
        console.take(packet(0, plain("90")))
    assert len(console.events()) == 1


def test_a_packets_own_events(console: Console) -> None:
    def coded(value: object) -> str:
        return base64.b64encode(json.dumps(value).encode()).decode()

    written = [
        coded({"data": "disk (root) <full>", "severity": 4}),
        coded({"data": "digits", "severity": "3"}),
        coded({"data": "odd", "severity": 99}),
        coded({"data": "none"}),
        coded({"data": "a word", "severity": "high"}),
        coded({"severity": 4}),
        coded(["data"]),
        "not base64 at all %",
        base64.b64encode(b"[" * 100_000).decode(),
    ]
    section = "".join(f"<event>{text}</event>" for text in written)
    console.take(packet(0, f"<events>{section}</events>"))
    e = schema.event.c
    rows = [row for row in console.rows(e.type, e.severity, e.text, e.source) if row[0] == "system"]
    assert rows == [
        ("system", 4, "disk&#x20;&#40;root&#41;&#x20;&lt;full&gt;", "monitoring_server"),
        ("system", 3, "digits", "monitoring_server"),
        ("system", 1, "odd", "monitoring_server"),
        ("system", 0, "none", "monitoring_server"),
        ("system", 0, "a&#x20;word", "monitoring_server"),
    ]


def test_events_of_the_packet_that_creates_an_agent_have_its_group(console: Console) -> None:
    coded = base64.b64encode(b'{"data": "told", "severity": 1}').decode()
    section = f"<events><event>{coded}</event></events>"
    # Of a batch, the earliest packet makes the agent.
    console.take(packet(5, section), packet(0, section, group="Servers"))
    console.take(packet(10, section))
    e = schema.event.c
    groups = [row[0] for row in console.rows(e.group_id, e.type) if row[1] == "system"]
    assert groups == [console.rows(schema.agent.c.group_id)[0][0], 0, 0]


def test_a_quiet_agent_tells_nothing_at_all(console: Console) -> None:
    def told(data: str) -> str:
        coded = base64.b64encode(b'{"data": "told", "severity": 1}').decode()
        return (
            f"<inventory><inventory_module><name>Software</name><datalist><data>{data}</data>"
            f"</datalist></inventory_module></inventory><events><event>{coded}</event></events>"
        )

    console.take(packet(0, told("one")), packet(5, told("two")))
    kinds = ["configuration_change", "system", "system"]
    assert sorted(event[0] for event in console.events()) == kinds
    console.set(schema.agent, quiet=1)
    console.take(packet(10, told("three") + plain("90")))
    assert sorted(event[0] for event in console.events()) == kinds


def test_an_inventory_that_the_console_made_has_changed_nothing_when_it_is_filled(
    console: Console,
) -> None:
    console.take(packet(0, plain("1")))
    ((agent_id,),) = console.rows(schema.agent.c.id)
    row = {"agent_id": agent_id, "inventory_module_id": 1, "data": b"", "custom_fields": b""}
    with console.engine.begin() as conn:
        conn.execute(insert(schema.inventory).values(row))
    for minute, data in ((5, "one"), (10, "two")):
        section = (
            "<inventory><inventory_module><name>Software</name><datalist>"
            f"<data>{data}</data></datalist></inventory_module></inventory>"
        )
        console.take(packet(minute, section))
    assert [event[0] for event in console.events()] == ["configuration_change"]


def test_half_a_surrogate_pair_in_a_packets_event_costs_one_character(console: Console) -> None:
    coded = base64.b64encode(b'{"data": "disk \\ud800 full", "severity": 4}').decode()
    console.take(packet(0, f"<events><event>{coded}</event></events>" + plain("1")))
    (written,) = console.rows(schema.event.c.text)[1]
    assert written == "disk&#x20;?&#x20;full"
    assert console.status() == (0, 0)


def test_an_event_of_four_byte_characters_suits_older_tables(console: Console) -> None:
    coded = base64.b64encode('{"data": "on fire 🔥 é", "severity": 4}'.encode()).decode()
    console.take(packet(0, f"<events><event>{coded}</event></events>"))
    e = schema.event.c
    (text,) = [row[0] for row in console.rows(e.text, e.type) if row[1] == "system"]
    assert text == "on&#x20;fire&#x20;&#x1f525;&#x20;&eacute;"
    assert entities.decode(text) == "on fire 🔥 é"


def test_a_pattern_that_is_too_long_is_no_threshold(console: Console) -> None:
    tags = {"str_critical": "a|" * 5_000, "str_warning": "a"}
    console.take(packet(0, plain("a", tags, kind="generic_data_string")))
    assert console.status() == (2, 2)


def test_a_packet_brings_no_flood_of_events(console: Console) -> None:
    coded = base64.b64encode(b'{"data": "again", "severity": 1}').decode()
    console.take(packet(0, f"<events>{f'<event>{coded}</event>' * 5_000}</events>"))
    assert len(console.events("system")) == 100


def test_a_very_long_value_is_cut_in_its_event(console: Console) -> None:
    tags = {"str_critical": "x"}
    console.take(packet(0, plain("x" + "é" * 100_000, tags, kind="generic_data_string")))
    ((kind, _, data, _),) = console.events()
    assert kind == "going_up_critical"
    assert data == "x" + "&eacute;" * 31


# -- statuses --------------------------------------------------------------------


def test_a_given_status_wins_over_thresholds_and_is_not_remembered(console: Console) -> None:
    told = LIMITS | {"status": " critical "}
    for minute, tags, status in ((0, told, 1), (5, LIMITS, 0), (10, told, 1), (15, LIMITS, 0)):
        console.take(packet(minute, plain("1", tags)))
        assert console.status() == (status, status)


def test_statuses_do_without_the_columns_that_older_databases_lack(
    pandora_database: Database,
) -> None:
    lacking = {
        "tagente_estado": "status_changes ff_start_utimestamp ff_normal ff_warning ff_critical "
        "last_status_change warning_count last_unknown_update",
        "tagente_modulo": "warning_time percentage_critical each_ff ff_type ff_timeout "
        "disabled_types_event quiet min_ff_event min_ff_event_normal str_critical "
        "critical_inverse critical_instructions unknown_instructions delete_pending",
        "tagente": "quiet update_module_count ignore_unknown",
        "tevento": "tags ack_utimestamp critical_instructions data module_status source",
    }
    with pandora_database.engine().begin() as conn:
        for table, columns in lacking.items():
            for column in columns.split():
                conn.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}"))
    console = Console(pandora_database)
    for minute, value in enumerate(("1", "1", "90", "90", "60")):
        console.take(packet(minute, plain(value) + plain("x", {}, "who", "async_string")))
    assert console.status() == (2, 2)
    assert console.counts() == (1, 0, 1, 0, 0, 2)
    e = schema.event.c
    assert console.rows(e.type, e.status)[1:] == [
        ("going_up_critical", 1),
        ("going_down_warning", 0),
    ]


def test_statuses_do_without_a_table_of_events(pandora_database: Database) -> None:
    with pandora_database.engine().begin() as conn:
        conn.execute(text("DROP TABLE tevento"))
    console = Console(pandora_database)
    console.take(packet(0, plain("1")), packet(5, plain("90")))
    assert (console.status(), console.counts()) == ((1, 1), (0, 1, 0, 0, 0, 1))


def test_new_thresholds_count_for_the_next_value_also_an_equal_one(console: Console) -> None:
    console.take(packet(0, plain("70", {})), packet(5, plain("70", {})))
    assert console.status() == (0, 0)
    console.set(schema.module, "load", min_warning=50.0, max_warning=80.0)
    console.take(packet(10, plain("70", {})))
    assert console.status() == (2, 2)
    console.set(schema.module, "load", min_warning=75.0)
    console.take(packet(15, plain("70", {})))
    assert console.status() == (0, 0)


def test_percents_compare_with_the_value_before(console: Console) -> None:
    console.take(packet(0, plain("100", {})))
    console.set(schema.module, "load", percentage_critical=1, min_critical=20.0, max_critical=10.0)
    seen = []
    for minute, value in enumerate(["109", "120", "120", "97", "70", "70"], 1):
        console.take(packet(minute, plain(value, {})))
        seen.append(console.status()[0])
    assert seen == [0, 1, 0, 0, 1, 0]


def test_too_many_warnings_are_critical(console: Console) -> None:
    console.take(packet(0, plain("60")))
    console.set(schema.module, "load", warning_time=2)
    seen = []
    for minute, value in enumerate(["60", "60", "60", "60", "1", "60"], 1):
        console.take(packet(minute, plain(value)))
        seen.append(console.status()[0])
    assert seen == [2, 2, 1, 1, 0, 2]


def test_counts_at_the_end_of_their_columns_stay_within(console: Console) -> None:
    console.take(packet(0, plain("60")))
    most = 2**32 - 1
    counts = dict.fromkeys(("ff_normal", "ff_warning", "ff_critical", "warning_count"), most)
    console.set(schema.module, "load", warning_time=most, ff_type=1, min_ff_event=most)
    console.set(schema.state, status_changes=255, **counts)
    for minute, value in enumerate(["60", "60", "90", "90", "1", "1", "60"], 1):
        console.take(packet(minute, plain(value)))
    assert console.status()[1] == Status.WARNING


def test_a_pending_change_is_asked_for_more_often(console: Console) -> None:
    ff = {"min_ff_event": 2, "module_ff_interval": 60}
    s = schema.state.c
    seen = []
    for minute, value in enumerate(["1", "90", "90", "90", "90"]):
        console.take(packet(minute, plain(value, LIMITS | ff)))
        seen.append((console.status(), *console.rows(s.current_interval)[0]))
    assert seen == [
        ((0, 0), 60),  # a first value is not believed at once either
        ((0, 1), 60),
        ((0, 1), 60),
        ((1, 1), 300),
        ((1, 1), 300),
    ]


def test_a_module_comes_back_from_unknown_with_its_next_value(console: Console) -> None:
    console.take(packet(0, plain("90")), packet(5, plain("90")))
    console.set(schema.state, status=Status.UNKNOWN, last_status=Status.UNKNOWN)
    console.take(packet(10, plain("90")))
    assert console.status() == (1, 1)
    assert [event[0] for event in console.events()] == ["going_up_critical"] * 2
    console.set(schema.state, status=Status.UNKNOWN, last_status=Status.UNKNOWN)
    console.take(packet(15, plain("1")))
    assert console.status() == (0, 0)
    assert [event[0] for event in console.events()][2:] == ["going_down_normal"]
    assert console.counts() == (1, 0, 0, 0, 0, 1)


def test_a_refused_value_changes_no_status(console: Console) -> None:
    console.take(packet(0, plain("90")), packet(5, plain("nonsense")))
    assert console.status() == (1, 1)
    assert len(console.events()) == 1


def test_a_pattern_that_takes_for_ever_does_not(console: Console) -> None:
    tags = {"str_critical": "^(a+)+$", "str_warning": "b$"}
    evil = "a" * 60 + "b"
    console.take(*(packet(i, plain(f"{i}{evil}", tags, kind="async_string")) for i in range(30)))
    assert console.status() == (2, 2)


# -- keep_alive ------------------------------------------------------------------


def test_a_keep_alive_module_answers_to_each_contact(console: Console) -> None:
    console.take(packet(0, plain("1", {}, "alive", "keep_alive")))
    s = schema.state.c
    down = dict.fromkeys(
        ("status", "known_status", "last_status", "last_known_status"), Status.CRITICAL
    )
    console.set(schema.state, value="0.00000", processed=1, **down)
    console.take(packet(5))
    assert console.rows(s.value, s.status, s.processed) == [("1.00000", 0, NOW)]
    assert console.events() == [("going_down_normal", 2, "1", True)]


# -- counts ----------------------------------------------------------------------


def recounted(console: Console, agent: str = "one") -> tuple[int, ...]:
    """What the counts should be, counted the plain way."""
    a, m, s = schema.agent.c, schema.module.c, schema.state.c
    query = (
        select(s.status, func.count())
        .where(s.module_id == m.id, m.agent_id == a.id, a.name == agent)
        .where(m.disabled == 0, m.server_kind != 0)
        .group_by(s.status)
    )
    with console.engine.connect() as conn:
        found = {row[0]: row[1] for row in conn.execute(query)}
    return (*(found.get(status, 0) for status in Status), sum(found.values()))


def test_counts_follow_every_change(console: Console) -> None:
    console.take(packet(0, plain("1") + plain("90", name="b") + plain("x", name="c")))
    assert console.counts() == recounted(console) == (1, 1, 0, 0, 1, 3)
    console.take(packet(5, plain("60") + plain("1", name="b") + plain("1", {}, "new")))
    assert console.counts() == recounted(console) == (2, 0, 1, 0, 1, 4)
    console.take(packet(10, plain("1", {"disabled": 1}, "d")))
    assert console.counts() == recounted(console) == (2, 0, 1, 0, 1, 4)
    console.take(packet(20, plain("1", {}, "s", "async_string"), agent="two"))
    assert console.counts("two") == recounted(console, "two") == (1, 0, 0, 0, 0, 1)


def test_counts_see_what_the_console_changed(console: Console) -> None:
    console.take(packet(0, plain("1") + plain("1", name="b")))
    # The console disables a module as it does: with the wish for a recount.
    with console.engine.begin() as conn:
        conn.execute(update(schema.module).where(schema.module.c.name == "b").values(disabled=1))
        conn.execute(update(schema.agent).values(update_module_count=1))
    with console.engine.begin() as conn:
        recount_flagged(conn, Sql(console.engine.dialect), console.server.recorder.layout)
    assert console.counts() == recounted(console) == (1, 0, 0, 0, 0, 1)
    console.take(packet(5, plain("90")))
    assert console.counts() == recounted(console) == (0, 1, 0, 0, 0, 1)


def test_counts_of_an_agent_that_other_servers_poll_too(console: Console) -> None:
    console.take(packet(0, plain("1") + plain("1", name="ping")))
    console.set(schema.module, "ping", server_kind=2)
    # The other server tells nobody of what it finds.
    m, s = schema.module.c, schema.state.c
    ping = select(m.id).where(m.name == "ping").scalar_subquery()
    with console.engine.begin() as conn:
        conn.execute(update(schema.state).where(s.module_id == ping).values(status=1))
    console.take(packet(5, plain("60")))
    assert console.counts() == recounted(console) == (0, 1, 1, 0, 0, 2)


def test_doubles_of_a_name_are_counted(console: Console) -> None:
    console.take(packet(0, plain("1")))
    s = schema.state
    with console.engine.begin() as conn:
        row = dict(conn.execute(select(schema.module)).mappings().one())
        double = {key: value for key, value in row.items() if key != schema.module.c.id.name}
        keys = {column.name: column.key for column in schema.module.columns}
        there = console.server.recorder.layout.columns(schema.module)
        double = {keys[c.name]: row[c.name] for c in there if c.key != "id" and c.name in row}
        made = conn.execute(insert(schema.module).values(double)).inserted_primary_key
        agent_id = double["agent_id"]
        conn.execute(insert(s).values(module_id=made[0], agent_id=agent_id, status=2))
    console.server.recorder.catalog.clear()
    console.take(packet(5, plain("90")))
    assert console.counts() == recounted(console) == (0, 1, 1, 0, 0, 2)
