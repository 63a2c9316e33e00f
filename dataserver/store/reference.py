"""The small tables that packets are read against: types, groups, systems, tags, fields.

Read together and kept for as long as any cache is (at most a minute): an administrator
changes them in the console, seldom.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from dataserver import entities
from dataserver.store import schema
from dataserver.store.catalog import folded_name
from dataserver.store.layout import Layout
from dataserver.store.servers import SATELLITE

# Source: behaviour of Pandora FMS's data server; the first word found in the name decides.
_SYSTEMS: tuple[tuple[tuple[str, ...], int], ...] = (
    (("windows",), 9),
    (("cisco",), 7),
    (("sunos", "solaris"), 2),
    (("aix",), 3),
    (("hp-ux",), 5),
    (("apple", "darwin"), 8),
    (("android",), 15),
    (("linux",), 1),
    (("enterasys", "3com"), 11),
    (("octopods",), 13),
    (("embedded",), 14),
    (("bsd",), 4),
)
_OTHER_SYSTEM = 10


@dataclass(frozen=True, slots=True)
class Reference:
    """Ids by name; names folded where Pandora compares them without case."""

    types: dict[str, int]
    groups: dict[str, int]
    group_ids: frozenset[int]
    systems: tuple[tuple[int, str], ...]
    module_groups: dict[str, int]
    tags: dict[str, int]
    custom_fields: dict[str, int]
    inventory_modules: dict[tuple[int, str], int]
    #: Satellite servers that have reported, by the names as they gave them.
    satellites: dict[str, int]

    def group(self, name: str) -> int | None:
        """The id of the group called ``name`` (as a packet writes it)."""
        return self.groups.get(folded_name(name)) if name else None

    def system(self, os_name: str) -> int:
        """The id of the operating system that ``os_name`` means."""
        lowered = os_name.lower()
        for words, os_id in _SYSTEMS:
            if any(word in lowered for word in words):
                return os_id
        for os_id, name in self.systems:
            if lowered and lowered in name:
                return os_id
        return _OTHER_SYSTEM


def read_reference(conn: Connection, layout: Layout) -> Reference:
    """Read all of it that ``layout`` says is there."""
    s = schema
    groups = _pairs(conn, s.group.c.name, s.group.c.id)
    return Reference(
        types=dict(_pairs(conn, s.module_type.c.name, s.module_type.c.id)),
        groups={folded_name(name): group_id for name, group_id in groups},
        group_ids=frozenset(group_id for _, group_id in groups),
        systems=tuple(
            (os_id, entities.decode(name).lower())
            for name, os_id in _pairs(conn, s.os.c.name, s.os.c.id)
        ),
        module_groups={
            folded_name(name): group_id
            for name, group_id in _pairs(conn, s.module_group.c.name, s.module_group.c.id)
        },
        tags=dict(_pairs(conn, s.tag.c.name, s.tag.c.id)),
        custom_fields=dict(_pairs(conn, s.custom_field.c.name, s.custom_field.c.id)),
        inventory_modules=_inventory_modules(conn, layout),
        satellites=read_satellites(conn, layout),
    )


def read_satellites(conn: Connection, layout: Layout, name: str | None = None) -> dict[str, int]:
    """The ids of the satellite servers by name; ``name``: of that one only."""
    c = schema.server.c
    if not all(map(layout.has, (c.id, c.name, c.server_type))):
        return {}
    query = select(c.name, c.id).where(c.server_type == SATELLITE).order_by(c.id.desc())
    if name is not None:
        query = query.where(c.name == name)
    return {row[0]: row[1] for row in conn.execute(query)}


def _inventory_modules(conn: Connection, layout: Layout) -> dict[tuple[int, str], int]:
    c = schema.inventory_module.c
    wanted = (c.os_id, c.name, c.id)
    if not all(map(layout.has, wanted)):
        return {}
    query = select(*wanted).order_by(c.id.desc())
    return {(os_id or 0, name): module_id for os_id, name, module_id in conn.execute(query)}


def _pairs(conn: Connection, name: object, key: object) -> list[tuple[str, int]]:
    rows = conn.execute(select(name, key).order_by(key))  # type: ignore[call-overload]
    return [(text or "", number) for text, number in rows]
