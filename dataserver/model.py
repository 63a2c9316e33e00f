"""The records that cross module boundaries: a packet and what it carries.

Everything here is text as the agent wrote it, decoded but not yet interpreted:
what a number, a time or a type means is decided by :mod:`dataserver.rules.values`,
:mod:`dataserver.rules.times` and the store.  Source of the names: the packet format
in ``docs/packet-format.md``.

A packet has thousands of modules a second, so :class:`Module` and
:class:`Sample` are named tuples (a frozen dataclass costs three times as much
to make); the rest are frozen dataclasses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Sample(NamedTuple):
    """One value of a ``datalist``: its text and its own time, as written."""

    value: str
    time: str | None


class Module(NamedTuple):
    """One ``module`` element.

    ``value`` is the text of ``data`` (None: no such element); ``samples`` those of a
    ``datalist``, which replace it.  ``tags`` has every other child element by its name.
    ``alert_template`` may be repeated and is not kept more than once.
    """

    name: str
    type: str
    value: str | None
    samples: tuple[Sample, ...]
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class InventoryModule:
    """One ``inventory_module``: its name and its rows."""

    name: str
    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Log:
    """One ``log_module``: parsed and kept, not stored."""

    source: str
    type: str
    encoding: str
    data: str


@dataclass(frozen=True, slots=True)
class Section:
    """One element of the root that has no home yet (``cmd_report``, traps, unknown ones).

    Kept as the XML it came in, not stored.
    """

    name: str
    xml: str


@dataclass(frozen=True, slots=True)
class Packet:
    """One agent's report.

    Attributes are those of the root element, None where it has none.
    ``digest`` identifies the content: 16 bytes, BLAKE2b of the file's bytes without white
    space at the end (so that a packet read before its last line feed was written is the
    same packet afterwards).
    ``repairs`` names what was mended to read it ("encoding", "attributes"); ``remarks`` tells
    people how.
    ``unstored`` counts the elements of ``logs`` and ``sections`` by name.
    """

    agent_name: str
    digest: bytes
    alias: str | None = None
    timestamp: str | None = None
    timezone_offset: str | None = None
    interval: str | None = None
    os_name: str | None = None
    os_version: str | None = None
    version: str | None = None
    description: str | None = None
    group: str | None = None
    group_id: str | None = None
    group_password: str | None = None
    secondary_groups: str | None = None
    address: str | None = None
    parent_agent_name: str | None = None
    agent_mode: str | None = None
    custom_id: str | None = None
    url_address: str | None = None
    longitude: str | None = None
    latitude: str | None = None
    altitude: str | None = None
    position_description: str | None = None
    satellite_server: str | None = None
    server_name: str | None = None
    server_type: str | None = None
    modules: tuple[Module, ...] = ()
    custom_fields: tuple[tuple[str, str], ...] = ()
    inventory: tuple[InventoryModule, ...] = ()
    logs: tuple[Log, ...] = ()
    events: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    repairs: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    unstored: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Arrival:
    """A packet on its way to the store, with what its file says about it.

    ``time`` is the packet's time (epoch seconds), None where its timestamp is unreadable.
    ``number`` is the one in the file's name; ``arrived`` the file's modification time.
    ``token`` is the spool's handle of the file; the store hands it back untouched.
    """

    packet: Packet
    time: int | None
    number: int
    arrived: int
    token: object = None
