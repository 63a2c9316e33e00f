"""Every column of every table that packets fill: with what the Perl server fills it.

The golden cases hold the columns that differ from row to row; all others have one value in each
row that a packet makes: the column's default, or what the Perl server writes in its place.
"""

from __future__ import annotations

from datetime import UTC
from typing import Any

from sqlalchemy import text

from dataserver.store import schema
from dataserver.store.sweeps.keep_alive import SilenceSweep
from dataserver.store.sweeps.unknown import UnknownSweep
from tests.support.databases import Database
from tests.support.golden import Case
from tests.support.ingest import Instance
from tests.support.monitored import CRITICAL, LONG_AGO, NOW, Monitored
from tests.support.monitored import text as local
from tests.support.pandora import facts

#: Cases that fill every table between them.
CASES = ("sections", "module_tags", "real")

#: By table: the columns that the golden cases compare, ids by the names behind them.
RECORDED = {
    "tagente": "nombre alias direccion comentarios id_grupo modo intervalo id_os os_version"
    " agent_version ultimo_contacto_remoto disabled id_parent custom_id url_address timezone_offset"
    " server_name normal_count warning_count critical_count unknown_count notinit_count"
    " total_count",
    "tagente_modulo": "id_agente id_tipo_modulo descripcion extended_info nombre unit max min"
    " module_interval cron_interval module_ff_interval id_module_group id_modulo disabled"
    " post_process custom_id history_data min_warning max_warning str_warning min_critical"
    " max_critical str_critical min_ff_event critical_instructions warning_instructions"
    " unknown_instructions quiet critical_inverse warning_inverse min_ff_event_normal"
    " min_ff_event_warning min_ff_event_critical ff_type each_ff ff_timeout parent_module_id",
    "tagente_estado": "id_agente_modulo id_agente datos timestamp estado known_status last_try"
    " current_interval last_execution_try status_changes last_status last_known_status"
    " ff_start_utimestamp ff_normal ff_warning ff_critical last_status_change",
    "tagente_datos": "id_agente_modulo datos utimestamp",
    "tagente_datos_string": "id_agente_modulo datos utimestamp",
    "tagente_datos_inc": "id_agente_modulo datos utimestamp",
    "tagente_datos_inventory": "id_agent_module_inventory data utimestamp",
    "tagent_module_inventory": "id_agente id_module_inventory data utimestamp",
    "tagent_custom_data": "id_field id_agent description",
    "taddress": "ip",
    "taddress_agent": "id_a id_agent",
    "tevento": "id_agente id_agentmodule event_type criticity evento data module_status estado"
    " source critical_instructions warning_instructions unknown_instructions",
}

#: What the Perl server writes where the column's default is something else.
WRITTEN = {
    ("tagente_modulo", "disabled_types_event"): "",
    ("tagente_modulo", "module_macros"): "",
    ("tagent_module_inventory", "flag"): 0,
    ("tagent_module_inventory", "custom_fields"): b"",
    ("tevento", "id_usuario"): "",
    ("tevento", "tags"): "",
    ("tevento", "id_extra"): "",
    ("tevento", "custom_data"): "",
    ("tevento", "event_custom_id"): "",
}

_KEY, _CLOCK = "a number given by the database", "the clock of the run"
#: What is not compared here, and why.
EXCEPTIONS = {
    ("tagente", "id_agente"): _KEY,
    ("tagente", "ultimo_contacto"): _CLOCK,
    ("tagente_modulo", "id_agente_modulo"): _KEY,
    ("tagente_estado", "id_agente_estado"): _KEY,
    ("tagente_estado", "utimestamp"): _CLOCK,
    ("tagente_estado", "running_by"): "the id of the server's row in tserver",
    ("tagent_module_inventory", "id_agent_module_inventory"): _KEY,
    ("tagent_module_inventory", "interval"): "the agent's, below",
    ("tagent_module_inventory", "timestamp"): "utimestamp as local time",
    ("tagente_datos_inventory", "timestamp"): "utimestamp as local time",
    ("taddress", "id_a"): _KEY,
    ("taddress_agent", "id_ag"): _KEY,
    ("tevento", "id_evento"): _KEY,
    ("tevento", "timestamp"): _CLOCK,
    ("tevento", "utimestamp"): _CLOCK,
    ("tevento", "ack_utimestamp"): _CLOCK,
    ("tevento", "id_grupo"): "the agent's, below; of events of packets: test_statuses.py",
}

#: Rows that do not have what their agent has.
AS_THEIR_AGENTS = """
SELECT 'tagent_module_inventory', id_agent_module_inventory
FROM tagent_module_inventory i JOIN tagente a ON a.id_agente = i.id_agente
WHERE i.`interval` <> a.intervalo
UNION ALL
SELECT 'tevento', id_evento FROM tevento e LEFT JOIN tagente a ON a.id_agente = e.id_agente
WHERE e.id_grupo <> COALESCE(a.id_grupo, 0)
"""

#: Written too, but not by packets of agents, or not in these cases.
ELSEWHERE = {
    "tserver": "test_tserver.py",
    "ttag_module": "two ids; test_recorder.py",
    "tplanned_downtime": "test_downtimes.py",
    "tplanned_downtime_agents": "test_downtimes.py",
}


def test_every_column_of_every_table_holds_what_the_perl_server_puts_there(
    database: Database,
) -> None:
    instance = Instance(database)
    with instance.one_process() as process:
        for case in map(Case, CASES):
            for files in case.steps():
                instance.place((file, case.modified(file)) for file in files)
                process.step()
    assert instance.rejected == []
    wanted = {table: constants(table) for table in RECORDED}
    found: dict[str, dict[str, set[Any]]] = {}
    with database.engine().connect() as conn:
        for table in RECORDED:
            rows = conn.execute(text(f"SELECT * FROM {table}")).mappings().all()
            assert rows, table
            # Our own tables have keys besides.
            found[table] = {
                name: {row[name] for row in rows} for name in rows[0] if name in wanted[table]
            }
        assert conn.execute(text(AS_THEIR_AGENTS)).all() == []
    assert found == {
        table: {name: {value} for name, value in columns.items()}
        for table, columns in wanted.items()
    }


def test_events_of_sweeps_are_filled_likewise(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent()
    store.module(agent, "load")
    store.module(agent, "async", "async_data", status=CRITICAL)
    store.module(agent, "alive", "keep_alive", value="1.00000", last_execution_try=LONG_AGO)
    silence = SilenceSweep(store.sql, store.layout, store.events, UTC)
    unknown = UnknownSweep(store.sql, store.layout, store.events, local)
    for sweep in (silence, unknown):
        with store.engine.begin() as conn:
            sweep.sweep(conn, NOW, NOW)
    wanted = constants("tevento")
    with store.engine.connect() as conn:
        rows = conn.execute(text("SELECT * FROM tevento")).mappings().all()
    assert [{name: row[name] for name in wanted} for row in rows] == [wanted] * 3


def constants(table: str) -> dict[str, Any]:
    """The one value of each column of ``table`` that is neither recorded nor an exception."""
    columns = {row["column_name"]: row for row in facts("columns") if row["table_name"] == table}
    left_out = set(RECORDED[table].split()) | {name for of, name in EXCEPTIONS if of == table}
    assert left_out <= columns.keys()
    return {
        name: WRITTEN[table, name] if (table, name) in WRITTEN else default(row)
        for name, row in columns.items()
        if name not in left_out
    }


def default(row: dict[str, str]) -> Any:
    """A column's default, as a driver gives it."""
    written = row["dflt"]
    if written == "NULL":
        return None
    return written.strip("'") if written.startswith("'") else int(written)


def test_every_table_that_this_server_writes_is_compared_here_or_elsewhere() -> None:
    read_only = (
        "tgrupo tconfig tconfig_os tmodule_group ttipo_modulo ttag tagent_custom_fields"
        " tmodule_inventory tplanned_downtime_modules"
    )
    tables = set(schema.pandora.tables)
    assert tables == RECORDED.keys() | ELSEWHERE.keys() | set(read_only.split())
    assert all((table, name) not in EXCEPTIONS for table, name in WRITTEN)
