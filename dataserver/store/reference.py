"""Reads the small tables that packets refer to: types, groups, systems, tags, fields, settings.

They are read together and cached like agents (a minute at most), since an administrator seldom
changes them in the console.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import Connection, select

from dataserver.rules import entities
from dataserver.store import schema
from dataserver.store.cache import folded_name
from dataserver.store.layout import Layout
from dataserver.store.servers import SATELLITE, find_server

# Source: behaviour of Pandora FMS's data server; the first match of a word in the name decides.
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

#: Settings of the console, in ``tconfig``.
_STORM_PROTECTION, _SILENT_INVENTORY = "event_storm_protection", "inventory_changes_blacklist"

#: An id; the length is bounded, since Python converts no numbers of thousands of digits.
_ID = re.compile(r"[0-9]{1,10}")


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
    #: Ids of satellite servers that have reported, by name as in their packets.
    satellites: dict[str, int]
    #: Ids of inventory modules whose changes make no events.
    untold_inventory: frozenset[int]
    #: Whether changes of status make no events.
    storm_protection: bool
    #: The id of our own row in ``tserver``, or 0 if it has none yet.
    server_id: int

    def group(self, name: str) -> int | None:
        """The id of the group called ``name`` (as a packet writes it)."""
        return self.groups.get(folded_name(name)) if name else None

    def system(self, os_name: str) -> int:
        """The id of the operating system named ``os_name``."""
        lowered = os_name.lower()
        for words, os_id in _SYSTEMS:
            if any(word in lowered for word in words):
                return os_id
        for os_id, name in self.systems:
            if lowered and lowered in name:
                return os_id
        return _OTHER_SYSTEM


def read_reference(conn: Connection, layout: Layout, server_name: str) -> Reference:
    """Read the tables that exist in ``layout``."""
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
        untold_inventory=_numbers(_configured(conn, layout, _SILENT_INVENTORY)),
        storm_protection=storm_protection(conn, layout),
        server_id=find_server(conn, layout, server_name) or 0,
    )


def storm_protection(conn: Connection, layout: Layout) -> bool:
    """Whether the console's "event storm protection" is on."""
    return _configured(conn, layout, _STORM_PROTECTION).strip() == "1"


def _configured(conn: Connection, layout: Layout, token: str) -> str:
    """A setting of the console, or an empty text if it is not set."""
    c = schema.config.c
    if not (layout.has(c.token) and layout.has(c.value)):
        return ""
    query = select(c.value).where(c.token == token).order_by(c.id.desc()).limit(1)
    return conn.scalar(query) or ""


def _numbers(text: str) -> frozenset[int]:
    """The ids in a comma-separated list; other words are ignored."""
    words = (word.strip() for word in text.split(","))
    return frozenset(int(word) for word in words if _ID.fullmatch(word))


def read_satellites(conn: Connection, layout: Layout, name: str | None = None) -> dict[str, int]:
    """The ids of the satellite servers by name, or only of the one called ``name``."""
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
