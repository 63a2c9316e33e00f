"""What a store holds, as the rows of the golden cases: joined by names, without ids."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Select, Table, select

from dataserver.store import schema
from tests.support.golden import Row

agent, module, state = schema.agent.c, schema.module.c, schema.state.c

#: Columns of ``tagente_modulo`` that have the same name there, in the cases and in the schema.
_MODULE_COLUMNS = re.findall(
    r"\w+",
    """
    description extended_info unit max min module_interval cron_interval disabled post_process
    custom_id history_data min_warning max_warning str_warning min_critical max_critical
    str_critical min_ff_event critical_instructions warning_instructions
    unknown_instructions quiet critical_inverse warning_inverse min_ff_event_normal
    min_ff_event_warning min_ff_event_critical ff_type each_ff ff_timeout module_ff_interval
    """,
)

#: Columns of ``tagente_estado`` that say where a module stands.
_STATUS_COLUMNS = re.findall(
    r"\w+",
    """
    status known_status last_status last_known_status status_changes ff_normal ff_warning
    ff_critical last_status_change ff_start_utimestamp
    """,
)
_COUNTED = ("normal", "warning", "critical", "unknown", "notinit", "total")


def stored(conn: Connection, table: str, *, has_ordinal: bool) -> list[Row]:
    """The rows of one of ``golden.TABLES``; values in the order of their times and ordinals."""
    if table == "values":
        tables = (schema.number_history, schema.text_history)
        queries = [_history(history, has_ordinal=has_ordinal) for history in tables]
    else:
        queries = [_QUERIES[table]()]
    return [
        {name: _cell(value) for name, value in row._mapping.items()}
        for query in queries
        for row in conn.execute(query)
    ]


def _agents() -> Select[Any]:
    parent = schema.agent.alias()
    return (
        select(
            agent.name.label("agent"),
            agent.alias,
            agent.address.label("address"),
            schema.group.c.name.label("group_name"),
            agent.description.label("description"),
            agent.mode.label("mode"),
            agent.interval.label("interval"),
            agent.os_id.label("id_os"),
            agent.os_version,
            agent.agent_version,
            agent.packet_contact.label("last_remote_contact"),
            agent.disabled,
            parent.c.name.label("parent"),
            agent.custom_id,
            agent.url_address,
            agent.timezone_offset,
            agent.server_name,
            *(agent[f"{status}_count"] for status in _COUNTED),
        )
        .outerjoin_from(schema.agent, schema.group, schema.group.c.id == agent.group_id)
        .outerjoin(parent, parent.c.id == agent.parent_id)
    )


def _modules() -> Select[Any]:
    parent = schema.module.alias()
    return (
        _of_module(
            schema.module_type.c.name.label("type"),
            *(module[name].label(name) for name in _MODULE_COLUMNS),
            schema.module_group.c.name.label("module_group"),
            parent.c.name.label("parent"),
            module.server_kind.label("id_modulo"),
        )
        .join(schema.module_type, schema.module_type.c.id == module.type_id)
        .outerjoin(schema.module_group, schema.module_group.c.id == module.group_id)
        .outerjoin(parent, parent.c.id == module.parent_module_id)
    )


def _states() -> Select[Any]:
    return (
        _of_module(
            schema.module_type.c.name.label("type"),
            state.value.label("value"),
            state.local_time.label("timestamp"),
            state.last_execution_try,
            state.saved.label("last_try"),
            state.current_interval,
            *(state[name].label(name) for name in _STATUS_COLUMNS),
        )
        .join(schema.state, state.module_id == module.id)
        .join(schema.module_type, schema.module_type.c.id == module.type_id)
    )


def _history(history: Table, *, has_ordinal: bool) -> Select[Any]:
    query = _of_module(history.c.time.label("utimestamp"), history.c.value.label("value"))
    query = query.join(history, history.c.module_id == module.id).order_by(history.c.time)
    return query.order_by(history.c.ordinal) if has_ordinal else query


def _counters() -> Select[Any]:
    counter = schema.counter.c
    query = _of_module(counter.time.label("utimestamp"), counter.value.label("value"))
    return query.join(schema.counter, counter.module_id == module.id)


def _addresses() -> Select[Any]:
    return (
        select(agent.name.label("agent"), schema.address.c.ip)
        .join_from(schema.agent, schema.agent_address, schema.agent_address.c.agent_id == agent.id)
        .join(schema.address, schema.address.c.id == schema.agent_address.c.address_id)
    )


def _custom_fields() -> Select[Any]:
    value = schema.custom_value.c
    return (
        select(
            agent.name.label("agent"),
            schema.custom_field.c.name.label("field"),
            value.value.label("value"),
        )
        .join_from(schema.agent, schema.custom_value, value.agent_id == agent.id)
        .join(schema.custom_field, schema.custom_field.c.id == value.field_id)
    )


def _inventory() -> Select[Any]:
    current = schema.inventory.c
    return _of_inventory(current.time.label("utimestamp"), current.data)


def _inventory_history() -> Select[Any]:
    past = schema.inventory_history.c
    query = _of_inventory(past.time.label("utimestamp"), past.data)
    return query.join(schema.inventory_history, past.inventory_id == schema.inventory.c.id)


def _of_module(*columns: Any) -> Select[Any]:
    return select(agent.name.label("agent"), module.name.label("module"), *columns).join_from(
        schema.module, schema.agent, agent.id == module.agent_id
    )


def _of_inventory(*columns: Any) -> Select[Any]:
    defined, current = schema.inventory_module.c, schema.inventory.c
    return (
        select(agent.name.label("agent"), defined.name.label("module"), *columns)
        .join_from(schema.inventory, schema.agent, agent.id == current.agent_id)
        .join(schema.inventory_module, defined.id == current.inventory_module_id)
    )


def _cell(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return repr(value) if isinstance(value, int | float | Decimal) else str(value)


def _events() -> Select[Any]:
    event = schema.event.c
    return (
        select(
            agent.name.label("agent"),
            module.name.label("module"),
            event.type.label("event_type"),
            event.severity.label("criticity"),
            event.text.label("text"),
            event.data,
            event.module_status,
            event.status.label("validated"),
            event.source,
            event.critical_instructions,
            event.warning_instructions,
            event.unknown_instructions,
        )
        .join_from(schema.event, schema.agent, agent.id == event.agent_id)
        .outerjoin(schema.module, module.id == event.module_id)
        .order_by(event.id)
    )


_QUERIES: dict[str, Callable[[], Select[Any]]] = {
    "agents": _agents,
    "modules": _modules,
    "state": _states,
    "counters": _counters,
    "addresses": _addresses,
    "custom_fields": _custom_fields,
    "inventory": _inventory,
    "inventory_history": _inventory_history,
    "events": _events,
}
