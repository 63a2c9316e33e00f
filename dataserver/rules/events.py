"""Events for operators, worded as Pandora's own server words them.  No I/O, no clock.

Texts are plain here; the store encodes them (as it does names) and adds the group, tags and
instructions of the agent and the module.  Source of the wording: the golden cases.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from dataserver.rules import entities
from dataserver.rules.status import Status

#: The severities (``criticity``) that this server uses.
MAINTENANCE, INFORMATIONAL, NORMAL, WARNING, CRITICAL, MINOR = range(6)
#: The highest severity: major.
_HIGHEST = 6
#: Maximum number of events in one packet: an uploader cannot create any number of them.
MOST_OF_A_PACKET = 100
#: No longer than a double is exact.
_PLAIN_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?", re.ASCII)


class EventDetails(NamedTuple):
    """What an event copies from its module: the names of its tags, as stored, and instructions."""

    tags: str = ""
    critical_instructions: str = ""
    warning_instructions: str = ""
    unknown_instructions: str = ""


#: The default: no tags, no instructions.
NO_DETAILS = EventDetails()


class Event(NamedTuple):
    """One event."""

    #: The type in the database: ``going_unknown``, ``system``, ``error``, ...
    type: str
    severity: int
    text: str
    agent_id: int = 0
    module_id: int = 0
    module_status: int = 0
    data: str = ""
    #: It needs no attention: stored as validated.
    closed: bool = False
    #: Group of the agent and details of the module; None: the store reads them.
    group_id: int | None = None
    about: EventDetails | None = None


def status_event(
    previous: Status,
    status: Status,
    agent_id: int,
    module_id: int,
    name: str,
    data: str,
    group_id: int | None = None,
    about: EventDetails | None = None,
) -> Event | None:
    """The event of a module ``name`` (as stored) that changes from ``previous`` to ``status``.

    None if there is no event: for a first value that is normal.
    """
    if status is Status.NORMAL:
        if previous is Status.NOT_INITIALISED:
            return None
        kind, severity = "going_down_normal", NORMAL
    elif status is Status.CRITICAL:
        kind, severity = "going_up_critical", CRITICAL
    else:
        down = previous is Status.CRITICAL
        kind, severity = "going_down_warning" if down else "going_up_warning", WARNING
    text = f"Module '{entities.decode(name)}' is going to {status.name} ({data})"
    closed = status is Status.NORMAL
    return Event(kind, severity, text, agent_id, module_id, status, data, closed, group_id, about)


def unknown_event(agent_id: int, module_id: int, name: str, data: str = "") -> Event:
    """The event of a module ``name`` (as stored) without a value since ``data`` (a date)."""
    text = f"Module '{entities.decode(name)}' is going to UNKNOWN"
    return Event("going_unknown", MINOR, text, agent_id, module_id, Status.UNKNOWN, data)


def forgotten_event(agent_id: int, module_id: int, name: str, data: str = "") -> Event:
    """The event of an asynchronous module that is normal again, without a value since ``data``."""
    text = f"Module '{entities.decode(name)}' is going to NORMAL (N/A)"
    return Event("going_down_normal", MINOR, text, agent_id, module_id, Status.NORMAL, data)


def agent_event(agent_id: int, alias: str, server: str) -> Event:
    """The event of a new agent with this ``alias`` (as stored)."""
    text = f"Agent [{entities.decode(alias)}] created by {server}"
    return Event("new_agent", NORMAL, text, agent_id)


def inventory_event(agent_id: int, alias: str, module: str, before: str, after: str) -> Event:
    """The event of a changed inventory; ``alias`` and the lists as stored."""
    lists = f"DELETED RECORD: {before}\nNEW RECORD: {after}\n"
    text = f"Configuration change:\n{entities.decode(lists)} for agent '{entities.decode(alias)}'"
    return Event("configuration_change", MAINTENANCE, f"{text} module '{module}'.", agent_id)


def number_text(number: float) -> str:
    """A number as events show it: with one decimal, or none if it is zero."""
    text = f"{number:.1f}"
    return text.removesuffix(".0")


def text_data(text: str) -> str:
    """A text as events show it: a plain number like :func:`number_text`, other text unchanged."""
    return number_text(float(text)) if _PLAIN_NUMBER.fullmatch(text) else text


def wants_event(switched_off: str | None, kind: str) -> bool:
    """Whether events of type ``kind`` are enabled by a module's ``disabled_types_event``.

    The console writes JSON, such as ``{"going_unknown": 1}`` to disable that type; anything else
    leaves all types enabled.
    """
    if not switched_off:
        return True
    try:
        read = json.loads(entities.decode(switched_off))
    except (ValueError, RecursionError):
        return True
    # The values that are false for the console and the Perl server.
    return not isinstance(read, dict) or read.get(kind) in (None, 0, "", "0")


def packet_events(agent_id: int, group_id: int, written: Iterable[str]) -> Iterator[Event]:
    """The events in a packet's own ``events`` section, each Base64 of JSON {data, severity}.

    Invalid ones are skipped, and so are all after the first :data:`MOST_OF_A_PACKET`.
    """
    read = (_packet_event(agent_id, group_id, text) for text in written)
    return islice((event for event in read if event is not None), MOST_OF_A_PACKET)


def _packet_event(agent_id: int, group_id: int, written: str) -> Event | None:
    try:
        fields = json.loads(base64.b64decode(written))
    except (binascii.Error, ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or fields.get("data") in (None, ""):
        return None
    text = fields["data"]
    if not isinstance(text, str):
        text = json.dumps(text, ensure_ascii=False)
    # JSON can contain half a surrogate pair, which no database stores: that must not make the
    # whole packet fail.
    text = text.encode("utf-8", "replace").decode()
    severity = _severity(fields.get("severity"))
    return Event("system", severity, text, agent_id, group_id=group_id)


def _severity(written: object) -> int:
    """A severity given as a number or as digits; anything else is 0, as with the Perl server."""
    try:
        severity = int(written) if isinstance(written, int | float | str) else MAINTENANCE
    except (ValueError, OverflowError):
        return MAINTENANCE
    return severity if MAINTENANCE <= severity <= _HIGHEST else INFORMATIONAL
