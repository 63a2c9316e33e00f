"""Events: what an operator is told, worded as Pandora's own server words it; no I/O, no clock.

Texts are plain here; the store encodes them (as it does names) and adds what it knows of the
agent and the module: group, tags, instructions.  Source of the wording: the golden cases.
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

#: Severities (``criticity``), as far as this server sets them.
MAINTENANCE, INFORMATIONAL, NORMAL, WARNING, CRITICAL, MINOR = range(6)
#: No longer than a double is exact.
_PLAIN_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?", re.ASCII)
#: The highest severity: major.
_HIGHEST = 6
#: Events of one packet; what an uploader may create is bounded.
MOST_OF_A_PACKET = 100


class About(NamedTuple):
    """What an event says of its module besides: names of its tags, as stored, and instructions."""

    tags: str = ""
    critical_instructions: str = ""
    warning_instructions: str = ""
    unknown_instructions: str = ""


#: Of most modules.
NOTHING_MORE = About()


class Event(NamedTuple):
    """One event, as it happened."""

    #: The type in the database: ``going_unknown``, ``system``, ``error``, ...
    type: str
    severity: int
    text: str
    agent_id: int = 0
    module_id: int = 0
    module_status: int = 0
    data: str = ""
    #: Needs nobody's attention: validated from its beginning.
    closed: bool = False
    #: What the database knows of agent and module; None: it is to be asked.
    group_id: int | None = None
    about: About | None = None


def status_event(
    was: Status,
    status: Status,
    agent_id: int,
    module_id: int,
    name: str,
    data: str,
    group_id: int | None = None,
    about: About | None = None,
) -> Event | None:
    """The event of a module ``name`` (as stored) that goes from ``was`` to ``status``.

    None where nobody is told: a first value that is normal.
    """
    if status is Status.NORMAL:
        if was is Status.NOT_INITIALISED:
            return None
        kind, severity = "going_down_normal", NORMAL
    elif status is Status.CRITICAL:
        kind, severity = "going_up_critical", CRITICAL
    else:
        down = was is Status.CRITICAL
        kind, severity = "going_down_warning" if down else "going_up_warning", WARNING
    text = f"Module '{entities.decode(name)}' is going to {status.name} ({data})"
    closed = status is Status.NORMAL
    return Event(kind, severity, text, agent_id, module_id, status, data, closed, group_id, about)


def unknown_event(agent_id: int, module_id: int, name: str, data: str = "") -> Event:
    """The event of a module ``name`` (as stored) that has had no value since ``data``."""
    text = f"Module '{entities.decode(name)}' is going to UNKNOWN"
    return Event("going_unknown", MINOR, text, agent_id, module_id, Status.UNKNOWN, data)


def forgotten_event(agent_id: int, module_id: int, name: str, data: str = "") -> Event:
    """The event of an asynchronous module without values since ``data``: it is normal again."""
    text = f"Module '{entities.decode(name)}' is going to NORMAL (N/A)"
    return Event("going_down_normal", MINOR, text, agent_id, module_id, Status.NORMAL, data)


def agent_event(agent_id: int, alias: str, server: str) -> Event:
    """The event of a new agent, called ``alias`` (as stored)."""
    text = f"Agent [{entities.decode(alias)}] created by {server}"
    return Event("new_agent", NORMAL, text, agent_id)


def inventory_event(agent_id: int, alias: str, module: str, before: str, after: str) -> Event:
    """The event of an inventory that changed; ``alias`` and the lists as stored."""
    lists = f"DELETED RECORD: {before}\nNEW RECORD: {after}\n"
    text = f"Configuration change:\n{entities.decode(lists)} for agent '{entities.decode(alias)}'"
    return Event("configuration_change", MAINTENANCE, f"{text} module '{module}'.", agent_id)


def number_text(number: float) -> str:
    """A number as events show it: at most one decimal, and none that is zero."""
    text = f"{number:.1f}"
    return text.removesuffix(".0")


def text_data(text: str) -> str:
    """A text as events show it: what is a plain number, as one."""
    return number_text(float(text)) if _PLAIN_NUMBER.fullmatch(text) else text


def wants_event(switched_off: str | None, kind: str) -> bool:
    """Whether a module's ``disabled_types_event`` leaves events of this type on.

    The console writes JSON, ``{"going_unknown": 1}`` to switch it off; anything else leaves it on.
    """
    if not switched_off:
        return True
    try:
        read = json.loads(entities.decode(switched_off))
    except (ValueError, RecursionError):
        return True
    # What is false to the console and to the Perl server.
    return not isinstance(read, dict) or read.get(kind) in (None, 0, "", "0")


def packet_events(agent_id: int, group_id: int, written: Iterable[str]) -> Iterator[Event]:
    """The events in a packet's own ``events`` section, each Base64 of JSON {data, severity}.

    What is none is left out, and so is what comes after the hundredth.
    """
    read = (_packet_event(agent_id, group_id, text) for text in written)
    return islice((event for event in read if event is not None), MOST_OF_A_PACKET)


def _packet_event(agent_id: int, group_id: int, written: str) -> Event | None:
    try:
        told = json.loads(base64.b64decode(written))
    except (binascii.Error, ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or told.get("data") in (None, ""):
        return None
    text = told["data"]
    if not isinstance(text, str):
        text = json.dumps(text, ensure_ascii=False)
    # JSON can write half a surrogate pair, which no database takes: it is no reason to refuse
    # the packet.
    text = text.encode("utf-8", "replace").decode()
    severity = _severity(told.get("severity"))
    return Event("system", severity, text, agent_id, group_id=group_id)


def _severity(told: object) -> int:
    """As a number or as its digits; what is no number is 0, as with the Perl server."""
    try:
        severity = int(told) if isinstance(told, int | float | str) else MAINTENANCE
    except (ValueError, OverflowError):
        return MAINTENANCE
    return severity if MAINTENANCE <= severity <= _HIGHEST else INFORMATIONAL
