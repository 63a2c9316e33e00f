"""The rows that a new database of our own starts with: Pandora's stock data that is relied on."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Table

from dataserver.store import schema

_MODULE_TYPES = (
    (1, "generic_data", 0, "Generic numeric"),
    (2, "generic_proc", 1, "Generic boolean"),
    (3, "generic_data_string", 2, "Generic string"),
    (4, "generic_data_inc", 0, "Generic numeric incremental"),
    (5, "generic_data_inc_abs", 0, "Generic numeric incremental (absolute)"),
    (6, "remote_icmp_proc", 4, "Remote ICMP network agent, boolean data"),
    (7, "remote_icmp", 3, "Remote ICMP network agent (latency)"),
    (8, "remote_tcp", 3, "Remote TCP network agent, numeric data"),
    (9, "remote_tcp_proc", 4, "Remote TCP network agent, boolean data"),
    (10, "remote_tcp_string", 5, "Remote TCP network agent, alphanumeric data"),
    (11, "remote_tcp_inc", 3, "Remote TCP network agent, incremental data"),
    (15, "remote_snmp", 3, "Remote SNMP network agent, numeric data"),
    (16, "remote_snmp_inc", 3, "Remote SNMP network agent, incremental data"),
    (17, "remote_snmp_string", 5, "Remote SNMP network agent, alphanumeric data"),
    (18, "remote_snmp_proc", 4, "Remote SNMP network agent, boolean data"),
    (21, "async_proc", 7, "Asyncronous proc data"),
    (22, "async_data", 6, "Asyncronous numeric data"),
    (23, "async_string", 8, "Asyncronous string data"),
    (34, "remote_cmd", 10, "Remote execution, numeric data"),
    (35, "remote_cmd_proc", 10, "Remote execution, boolean data"),
    (36, "remote_cmd_string", 10, "Remote execution, alphanumeric data"),
    (37, "remote_cmd_inc", 10, "Remote execution, incremental data"),
    (100, "keep_alive", -1, "KeepAlive"),
)

_NAMES: dict[Table, dict[int, str]] = {
    schema.os: {
        1: "Linux",
        2: "Solaris",
        3: "AIX",
        4: "BSD",
        5: "HP-UX",
        7: "Cisco",
        8: "MacOS",
        9: "Windows",
        10: "Other",
        11: "Network",
        12: "Web&#x20;Server",
        13: "Sensor",
        14: "Embedded",
        15: "Android",
        16: "VMware",
        17: "Router",
        18: "Switch",
        100: "Cluster",
    },
    schema.group: {
        2: "Servers",
        4: "Firewalls",
        8: "Databases",
        9: "Network",
        10: "Unknown",
        11: "Workstations",
        12: "Applications",
        13: "Web",
    },
    schema.module_group: {
        1: "General",
        2: "Networking",
        3: "Application",
        4: "System",
        5: "Miscellaneous",
        6: "Performance",
        7: "Database",
        8: "Enviromental",
        9: "Users",
        10: "Security",
    },
    schema.custom_field: {1: "Serial&#x20;Number", 2: "Department"},
}

#: Inventory modules of Linux: what the Unix agents' inventory plugin sends.
_INVENTORY = {1: "Software", 2: "Init&#x20;services", 3: "Process", 4: "File&#x20;system"}
_LINUX = 1


def _types() -> Iterator[dict[str, object]]:
    for number, name, category, description in _MODULE_TYPES:
        yield {"id": number, "name": name, "category": category, "description": description}


def _named(names: dict[int, str]) -> list[dict[str, object]]:
    return [{"id": number, "name": name} for number, name in names.items()]


#: By table; the keys are those of the schema.
SEEDS: dict[Table, list[dict[str, object]]] = {
    schema.module_type: list(_types()),
    **{table: _named(names) for table, names in _NAMES.items()},
    schema.inventory_module: [{**row, "os_id": _LINUX, "code": b""} for row in _named(_INVENTORY)],
}
