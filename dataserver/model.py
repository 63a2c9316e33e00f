"""The records of a packet and its contents.

Everything here is text as the agent wrote it, decoded but not yet interpreted:
:mod:`dataserver.rules.values`, :mod:`dataserver.rules.times` and the store interpret numbers,
times and types.  Source of the names: the packet format in ``docs/packet-format.md``.

There are thousands of modules per second, so :class:`Module` and :class:`Sample` are named
tuples (creating a frozen dataclass costs three times as much); the rest are frozen dataclasses.
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

    ``value`` is the text of ``data``, or None without that element; ``samples`` are the values of a
    ``datalist``, which replace it.  ``tags`` has the text of every other child element by its
    name; of a repeated one (``alert_template``), only the first.
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
    """One ``log_module``: parsed, but not stored."""

    source: str
    type: str
    encoding: str
    data: str


@dataclass(frozen=True, slots=True)
class Section:
    """One other element of the root (``cmd_report``, traps, unknown ones): its XML, not stored."""

    name: str
    xml: str


@dataclass(frozen=True, slots=True)
class Packet:
    """One agent's packet.

    Text attributes are those of the root element, None if they are missing.
    ``digest`` identifies the content: 16 bytes, BLAKE2b of the file's bytes without white
    space at the end (so that a packet read before its last line feed was written is the
    same packet afterwards).
    ``repairs`` names what was repaired to read it ("encoding", "attributes"); ``remarks`` describes
    these repairs for people.
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
    """A packet to be stored, with the facts that its file adds.

    ``time`` is the packet's time (epoch seconds), or None if its timestamp is invalid.
    ``number`` is the one in the file's name; ``arrived`` the file's modification time (epoch
    seconds).  ``token`` identifies the file for the caller; the store returns it unchanged.
    """

    packet: Packet
    time: int | None
    number: int
    arrived: int
    token: object = None
