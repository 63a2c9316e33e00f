"""The recorder against what happens behind its back, and against input that means no good."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import pytest
from sqlalchemy import Engine, delete, func, insert, select, update

from dataserver.errors import Reason, StoreConflict, StoreRefused
from dataserver.store import schema
from dataserver.store.admission import Outcome
from dataserver.store.agents import AutoCreatePolicy
from dataserver.store.database import limits
from dataserver.store.layout import Layout, inspect
from dataserver.store.probe import prepare
from dataserver.store.recorder import Recorder
from tests.support import packets
from tests.support.databases import MARIADB, PANDORA, SQLITE, Database
from tests.support.ingest import NOW, ZONE, Ingest, arrival
from tests.support.mariadb import MariaDB
from tests.support.packets import START, module


def packet(time: int, modules: str = "", agent: str = "one", **root: str) -> bytes:
    """A packet at ``time`` after the start, in seconds."""
    return packets.packet(agent, modules, time=START + time, interval=300, **root)


def plain(value: str, name: str = "load", kind: str = "generic_data", **tags: str) -> str:
    return module(name, value, kind, **tags)


def listed(*values: tuple[int, str], name: str = "load") -> str:
    """A module with several values, at their own times after the start."""
    return module(name, [(value, START + time) for time, value in values])


class Console:
    """Looks into the database and deletes from it, as the console does."""

    def __init__(self, database: Database) -> None:
        self.engine: Engine = database.engine()

    @cached_property
    def layout(self) -> Layout:
        return inspect(self.engine)

    def delete_agent(self, name: str = "one") -> None:
        a, m, s = schema.agent, schema.module, schema.state
        with self.engine.begin() as conn:
            agent_id = conn.scalar(select(a.c.id).where(a.c.name == name))
            conn.execute(delete(s).where(s.c.agent_id == agent_id))
            conn.execute(delete(m).where(m.c.agent_id == agent_id))
            conn.execute(delete(a).where(a.c.id == agent_id))

    def delete_module(self, name: str = "load") -> None:
        m, s = schema.module, schema.state
        with self.engine.begin() as conn:
            module_id = conn.scalar(select(m.c.id).where(m.c.name == name))
            conn.execute(delete(s).where(s.c.module_id == module_id))
            conn.execute(delete(m).where(m.c.id == module_id))

    def history(self, name: str = "load") -> list[tuple[int, float]]:
        """The points of a module, in seconds after the start."""
        m, h = schema.module.c, schema.number_history.c
        query = select(h.time, h.value).where(h.module_id == m.id, m.name == name)
        with self.engine.connect() as conn:
            rows = conn.execute(self.layout.in_order(query, schema.number_history)).all()
        return [(time - START, value) for time, value in rows]

    def at(self, time: int, name: str = "load") -> float | None:
        """What the step function of a module reads at ``time`` after the start."""
        return next((value for when, value in reversed(self.history(name)) if when <= time), None)

    def count(self, table: object, *where: object) -> int:
        with self.engine.connect() as conn:
            query = select(func.count()).select_from(table).where(*where)  # type: ignore[arg-type]
            return conn.scalar(query) or 0


@pytest.fixture
def console(database: Database) -> Console:
    return Console(database)


@pytest.fixture
def server(database: Database) -> Ingest:
    return Ingest(database)


def take(server: Ingest, *contents: bytes) -> list[Outcome]:
    """Record a batch, again when somebody else was there meanwhile, as the worker does."""
    return insist(server, [arrival(content) for content in contents])


def insist(server: Ingest, arrivals: Iterable[object], tries: int = 5) -> list[Outcome]:
    listed_once = list(arrivals)
    for _ in range(tries):
        try:
            return server.record(listed_once)  # type: ignore[arg-type]
        except StoreConflict as error:
            last = error
    raise last


# -- what the console does meanwhile ---------------------------------------------


def test_a_late_packet_brings_back_a_deleted_module_too(server: Ingest, console: Console) -> None:
    take(server, packet(600, plain("1")))
    console.delete_module()
    take(server, packet(300, plain("2")))
    assert console.history() == [(300, 2.0)]


def test_a_late_packet_brings_back_a_deleted_agent_too(server: Ingest, console: Console) -> None:
    take(server, packet(600, plain("1")))
    console.delete_agent()
    take(server, packet(300, plain("2")))
    assert console.history() == [(300, 2.0)]
    assert console.count(schema.agent) == 1


def test_a_packet_that_comes_again_brings_back_a_deleted_agent(
    server: Ingest, console: Console
) -> None:
    """It writes nothing that could miss a row, and the ledger of the one that is gone has it."""
    sent = [arrival(packet(600, plain("1")))]
    (outcome,) = server.record(sent)
    assert not outcome.duplicate
    (outcome,) = server.record(sent)
    assert outcome.duplicate
    console.delete_agent()
    with pytest.raises(StoreConflict, match="1 agents were deleted"):
        server.record(sent)
    (outcome,) = server.record(sent)
    assert not outcome.duplicate
    assert (console.count(schema.agent), console.count(schema.module)) == (1, 1)
    assert console.history() == [(600, 1.0)]


def test_a_packet_of_a_disabled_agent_brings_it_back_when_it_was_deleted(
    server: Ingest, console: Console
) -> None:
    take(server, packet(300, plain("1")))
    with console.engine.begin() as conn:
        conn.execute(update(schema.agent).values(disabled=1))
    server.recorder.catalog.clear()
    sent = [arrival(packet(600, plain("2")))]
    server.record(sent)
    assert console.history() == [(300, 1.0)], "it is known to be disabled"
    console.delete_agent()
    with pytest.raises(StoreConflict, match="1 agents were deleted"):
        server.record(sent)
    server.record(sent)
    assert (console.count(schema.agent), console.count(schema.module)) == (1, 1)
    assert console.history() == [(600, 2.0)]


def test_what_else_is_in_the_batch_of_a_deleted_agent_is_stored_once(
    server: Ingest, console: Console
) -> None:
    again = packet(300, plain("1"), agent="one")
    take(server, again, packet(300, plain("2", "other"), agent="two"))
    console.delete_agent("one")
    outcomes = take(server, again, packet(600, plain("3", "other"), agent="two"))
    assert [outcome.duplicate for outcome in outcomes] == [False, False]
    assert console.history() == [(300, 1.0)]
    assert console.history("other") == [(300, 2.0), (600, 3.0)]


def test_an_agent_does_not_inherit_the_ledger_of_a_deleted_one(
    server: Ingest, console: Console
) -> None:
    take(server, packet(600, plain("1"), agent="one"))
    console.delete_agent("one")
    (outcome,) = take(server, packet(300, plain("2"), agent="two"))
    assert not outcome.late
    assert console.history() == [(300, 2.0)]


# -- input that means no good ------------------------------------------------------


@pytest.fixture(params=[1, pytest.param(16, marks=pytest.mark.long)], ids=["small", "default"])
def huge(request: pytest.FixtureRequest, mariadb: MariaDB) -> Iterator[str]:
    """A text longer than a statement may be: so many MiB, of which 16 are MariaDB's default."""
    limit = request.param << 20
    mariadb.execute(f"SET GLOBAL max_allowed_packet = {limit}")
    yield "x " * (limit * 9 // 16)
    mariadb.execute("SET GLOBAL max_allowed_packet = DEFAULT")


def test_a_packet_longer_than_a_statement_is_refused_not_tried_for_ever(
    pandora_database: Database, huge: str
) -> None:
    server = limited(pandora_database)
    inventory = (
        "<inventory><inventory_module><name>Software</name><datalist>"
        f"<data>{huge}</data></datalist></inventory_module></inventory>"
    )
    with pytest.raises(StoreRefused):
        server.record([arrival(packet(300, inventory, os_name="Linux"))], NOW)


def test_a_huge_attribute_does_not_keep_its_packet_out(
    pandora_database: Database, huge: str
) -> None:
    server, console = limited(pandora_database), Console(pandora_database)
    for attribute in ("parent_agent_name", "url_address", "agent_alias"):
        sent = packet(300, plain("1", attribute), attribute, **{attribute: huge})
        server.record([arrival(sent)], NOW)
        assert console.history(attribute) == [(300, 1.0)], attribute


def test_a_huge_agent_name_is_not_even_looked_up(pandora_database: Database, huge: str) -> None:
    server = limited(pandora_database)
    sent = [arrival(packet(time, agent=huge)) for time in (300, 600)]
    outcomes, _ = server.record(sent, NOW)
    assert [outcome.error and outcome.error.reason for outcome in outcomes] == [
        Reason.NAME_TOO_LONG
    ] * 2
    assert server.newest([huge]) == {}


def test_no_tag_keeps_a_packet_out(pandora_database: Database) -> None:
    # It has the narrowest columns.
    server = Ingest(pandora_database)
    values = ["-5", "200", "99999999999999", "1e307", "-1e308", "x" * 70_000]
    tags = [
        *("quiet", "disabled", "each_ff", "ff_type", "warning_inverse", "min_ff_event", "max"),
        *("min", "post_process", "min_warning", "unit", "custom_id", "cron_interval"),
        *("module_interval", "str_warning", "critical_instructions", "ff_timeout"),
    ]
    kept_out = {}
    for tag in tags:
        modules = "".join(plain("1", f"{tag}-{value[:6]}", **{tag: value}) for value in values)
        try:
            server.record([arrival(packet(300, modules, tag))])
        except StoreRefused as error:
            kept_out[tag] = str(error)
    assert kept_out == {}
    assert server.rejected == []
    names = {f"{tag}-{value[:6]}" for tag in tags for value in values}
    with Console(pandora_database).engine.connect() as conn:
        assert set(conn.scalars(select(schema.module.c.name))) == names


def limited(database: Database) -> Recorder:
    """A recorder that knows how long a statement may be, as the server's does."""
    engine = database.engine()
    layout = prepare(engine)
    with engine.connect() as conn:
        taken = limits(conn)
    return Recorder(
        engine,
        layout,
        zone=ZONE,
        learning=AutoCreatePolicy("ingest"),
        longest_text=taken.value,
        longest_statement=taken.statement,
    )


def test_an_agent_cannot_make_any_number_of_addresses(server: Ingest, console: Console) -> None:
    many = ",".join(f"10.0.{number // 256}.{number % 256}" for number in range(5_000))
    take(server, packet(300, address=many))
    assert console.count(schema.address) <= 100


def test_addresses_that_are_one_once_cut_are_linked_once(server: Ingest, console: Console) -> None:
    long = "a" * 60
    take(server, packet(300, address=f"{long}1,{long}2,{long}3"))
    assert console.count(schema.agent_address) == 1


def test_the_newest_time_of_an_agent_is_found_in_any_spelling(server: Ingest) -> None:
    take(server, packet(600, agent="One"))
    assert server.recorder.newest(["ONE"]) == {"ONE": (START + 600, 300)}


# -- late values --------------------------------------------------------------------


def test_values_at_their_own_times_survive_a_late_one_after_a_restart(
    server: Ingest, console: Console, database: Database
) -> None:
    """A datalist's unchanged values leave no row, so a late value must not run over them."""
    take(server, packet(300, plain("1")))
    take(server, packet(900, listed((700, "1"), (800, "1"), (900, "1"))))
    take(Ingest(database), packet(600, plain("2")))
    assert [console.at(time) for time in (300, 600, 700, 800, 900)] == [1, 2, 1, 1, 1]


# -- what is there beside what packets made --------------------------------------------


def test_a_module_that_the_console_adds_is_not_touched(server: Ingest, console: Console) -> None:
    take(server, packet(300, plain("1")))
    with console.engine.begin() as conn:
        agent_id = conn.scalar(select(schema.agent.c.id))
        conn.execute(insert(schema.state).values(module_id=99, agent_id=agent_id, value=""))
    take(server, packet(600, plain("1")))
    take(server, packet(900, plain("1")))
    c = schema.state.c
    with console.engine.connect() as conn:
        rows = conn.execute(select(c.module_id, c.processed).order_by(c.id)).all()
    assert [(row[0] == 99, row[1]) for row in rows] == [(False, NOW), (True, 0)]


def test_an_agent_keeps_working_beside_rows_of_a_deleted_module(
    server: Ingest, console: Console, database: Database
) -> None:
    take(server, packet(300, plain("1") + plain("1", "gone")))
    with console.engine.begin() as conn:
        marked = update(schema.module).where(schema.module.c.name == "gone")
        conn.execute(marked.values(delete_pending=1, name="delete_pending"))
    for time in (600, 900):
        take(Ingest(database), packet(time, plain("2")))
    assert console.at(900) == 2.0


def test_a_module_made_anew_is_not_the_deleted_one_that_has_its_name(
    server: Ingest, console: Console, database: Database
) -> None:
    take(server, packet(300, plain("1")))
    with console.engine.begin() as conn:
        conn.execute(update(schema.module).values(delete_pending=1))
    take(Ingest(database), packet(600, plain("2")))
    s = schema.state.c
    query = select(s.value, schema.module.c.delete_pending).join_from(
        schema.module, schema.state, s.module_id == schema.module.c.id
    )
    with console.engine.connect() as conn:
        assert sorted(conn.execute(query).all()) == [("1.00000", 1), ("2.00000", 0)]


def test_two_agents_of_one_name_are_the_older_one(
    pandora_database: Database,
) -> None:
    console = Console(pandora_database)
    with console.engine.begin() as conn:
        for _ in range(2):
            conn.execute(insert(schema.agent).values(name="one", group_id=10, mode=1))
    for _ in range(2):
        take(Ingest(pandora_database), packet(300, plain("1")))
    h = schema.module.c
    with console.engine.connect() as conn:
        first = conn.scalar(select(func.min(schema.agent.c.id)))
        assert set(conn.scalars(select(h.agent_id))) == {first}


def test_columns_that_are_null_in_an_existing_database_do_no_harm(
    pandora_database: Database,
) -> None:
    console = Console(pandora_database)
    counter = plain("5", "count", "generic_data_inc")
    take(Ingest(pandora_database), packet(300, plain("1") + counter))
    with console.engine.begin() as conn:
        conn.execute(update(schema.counter).values(value=None))
        conn.execute(update(schema.state).values(value=None, saved=None))
        agent_id = conn.scalar(select(schema.agent.c.id))
        row = {"agent_id": agent_id, "name": None, "type_id": 1, "description": None}
        conn.execute(insert(schema.module).values(**row, module_interval=None))
    server = Ingest(pandora_database)
    take(server, packet(600, plain("2") + counter + plain("3", "another")))
    assert server.rejected == []
    assert console.at(600) == 2.0
    assert console.count(schema.counter) == 1


def test_what_the_console_takes_away_comes_back_with_the_next_look(
    server: Ingest, console: Console, database: Database
) -> None:
    address = "10.0.0.1"
    take(server, packet(300, address=address))
    with console.engine.begin() as conn:
        conn.execute(delete(schema.agent_address))
    # Another server's packet makes this one look again.
    take(Ingest(database), packet(400))
    take(server, packet(600, address=address))
    assert console.count(schema.agent_address) == 1


def test_an_agent_that_is_renamed_leaves_its_packets_to_a_new_one(
    server: Ingest, console: Console, database: Database
) -> None:
    take(server, packet(300, plain("1")))
    with console.engine.begin() as conn:
        conn.execute(update(schema.agent).values(name="renamed"))
    take(Ingest(database), packet(600, agent="other"))
    server.recorder.catalog.clear()
    take(server, packet(900, plain("2")))
    with console.engine.connect() as conn:
        names = set(conn.scalars(select(schema.agent.c.name)))
    assert names == {"renamed", "one", "other"}


def test_a_renamed_agent_is_noticed_when_it_is_looked_at_again(
    server: Ingest, console: Console
) -> None:
    take(server, packet(300, plain("1")))
    with console.engine.begin() as conn:
        conn.execute(update(schema.agent).values(name="renamed"))
        # As if another server had been there.
        conn.execute(update(schema.agent_version).values(version=77))
    take(server, packet(600, plain("2")))
    with console.engine.connect() as conn:
        assert set(conn.scalars(select(schema.agent.c.name))) == {"renamed", "one"}


def test_names_that_are_one_once_cleaned_are_one_agent(server: Ingest, console: Console) -> None:
    take(server, packet(300, agent="one"))
    server.recorder.catalog.clear()
    take(server, packet(600, agent="one"), packet(900, agent="<script>one"))
    assert console.count(schema.agent) == 1
    assert server.rejected == []


# What is remembered is this process's business.
@pytest.mark.parametrize(
    "database",
    [SQLITE, *(pytest.param(kind, marks=pytest.mark.long) for kind in (MARIADB, PANDORA))],
    indirect=True,
)
def test_spellings_of_one_name_do_not_fill_the_memory(database: Database) -> None:
    server = Ingest(database)
    name = "abcdefghijklmnop"
    for batch in range(30):
        spelled = (
            "".join(
                letter.upper() if (batch * 500 + number) >> place & 1 else letter
                for place, letter in enumerate(name)
            )
            for number in range(500)
        )
        take(server, *(packet(300 + batch, agent=each) for each in spelled))
    assert len(server.recorder.catalog._by_raw) < 12_000


def test_no_name_is_written_down_of_an_agent_too_many(
    server: Ingest, console: Console, database: Database
) -> None:
    engine = database.engine()
    recorder = Recorder(
        engine,
        prepare(engine),
        zone=ZONE,
        learning=AutoCreatePolicy("ingest", max_agents=2),
        longest_text=1_000_000,
    )
    for number in range(10):
        recorder.record([arrival(packet(300, agent=f"agent{number}"))], NOW)
    assert console.count(schema.agent) == 2
    assert console.count(schema.unique_name) == 2


@pytest.mark.parametrize(
    "lacking",
    [
        "ALTER TABLE tserver DROP COLUMN server_keepalive_utimestamp",
        "ALTER TABLE tagent_module_inventory DROP COLUMN custom_fields",
        "DROP TABLE tagente_datos_inventory",
        "DROP TABLE tmodule_inventory",
        "DROP TABLE tserver",
        "ALTER TABLE tagent_module_inventory DROP COLUMN `interval`, DROP COLUMN flag",
        "ALTER TABLE tevento DROP COLUMN id_extra, DROP COLUMN event_custom_id,"
        " DROP COLUMN custom_data",
        "ALTER TABLE tagente_modulo DROP COLUMN disabled_types_event, DROP COLUMN module_macros",
    ],
)
def test_what_an_older_database_lacks_is_left_out(lacking: str, pandora_database: Database) -> None:
    with pandora_database.engine().begin() as conn:
        conn.exec_driver_sql(lacking)
    server = Ingest(pandora_database)
    inventory = (
        "<inventory><inventory_module><name>Software</name><datalist><data>x</data></datalist>"
        "</inventory_module></inventory>"
    )
    take(server, packet(300, agent="", server_name="satellite"))
    take(server, packet(300, plain("1") + inventory, os_name="Linux"))
    again = inventory.replace("x", "y")
    take(server, packet(600, plain("2", max_critical="2") + again, os_name="Linux"))
    assert Console(pandora_database).history() == [(300, 1.0), (600, 2.0)]
