"""Converts the texts of a packet to the columns of a new agent or module.

Descriptive text is cut to its column, as MySQL did for the Perl server; names and values are not
(a packet or module whose name does not fit is refused).  Invalid numbers become zero, as there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import Table

from dataserver.model import Module, Packet
from dataserver.rules import entities
from dataserver.rules.due import DEFAULT_INTERVAL
from dataserver.rules.values import parse_number
from dataserver.store import schema

_INT_MAX = 2**31 - 1
#: Characters of an agent's name, as stored.
AGENT_NAME_LENGTH = 600
#: Addresses of one packet at most: agents have a few, and each is stored for ever.
_MOST_ADDRESSES = 100
#: Maximum bytes of a character.
_WIDEST = 4
#: Maximum length of a TEXT column, in bytes.
TEXT_BYTES = 65_535

#: Tags with a column of the same name, by how they are converted.
_TEXT_TAGS = (
    "unit",
    "custom_id",
    "str_warning",
    "str_critical",
    "critical_instructions",
    "warning_instructions",
    "unknown_instructions",
)
#: Those that are empty and not NULL if the packet does not have them.
_EMPTY_TAGS = ("custom_id", "critical_instructions", "warning_instructions", "unknown_instructions")
_FLOAT_TAGS = ("post_process", "min_warning", "max_warning", "min_critical", "max_critical")
_BIG_TAGS = ("max", "min")
_INT_TAGS = (
    "min_ff_event",
    "min_ff_event_normal",
    "min_ff_event_warning",
    "min_ff_event_critical",
    "module_ff_interval",
    "ff_timeout",
)
_FLAG_TAGS = ("disabled", "quiet", "each_ff", "ff_type", "warning_inverse", "critical_inverse")
#: Known tags without a column of the module's row, or handled elsewhere.
_OTHER_TAGS = (
    "description",
    "module_interval",
    "cron_interval",
    "crontab",
    "module_group",
    "tags",
    "timestamp",
    "status",
    "alert_template",
    "module_parent",
    "module_parent_unlink",
)
#: Columns without a tag that are empty and not NULL in a new row, as the Perl server writes them.
_EMPTY = ("disabled_types_event", "module_macros")
_KNOWN = frozenset(_TEXT_TAGS + _FLOAT_TAGS + _BIG_TAGS + _INT_TAGS + _FLAG_TAGS + _OTHER_TAGS)
#: Five fields of numbers, ranges and stars; agents allow more, but servers cannot read it.
_CRONTAB = re.compile(r"[0-9*-]+(?: [0-9*-]+){4}", re.ASCII)
_FLOATS = frozenset(_FLOAT_TAGS + _BIG_TAGS)
_INTEGERS = frozenset(_INT_TAGS + _FLAG_TAGS)
_LEADING_INT = re.compile(r"\s*([+-]?[0-9]+)")


def to_int(text: str | None, low: int = 0, high: int = _INT_MAX) -> int:
    """The integer at the beginning of ``text``, limited to the bounds; 0 if there is none."""
    match = _LEADING_INT.match(text or "")
    if match is None or len(match[1]) > 20:
        return 0
    return min(max(int(match[1]), low), high)


def to_float(text: str | None) -> float:
    """``text`` as a number (decimal comma allowed); 0 if it is invalid."""
    return parse_number(text or "") or 0.0


def to_big(text: str | None) -> int:
    """``text`` as a BIGINT, rounded half away from zero as MySQL does; 0 if it is invalid."""
    number = to_float(text)
    rounded = math.floor(abs(number) + 0.5) * (1 if number >= 0 else -1)
    return min(max(rounded, -(2**63)), 2**63 - 1)


def fit(table: Table, key: str, text: str) -> str:
    """``text`` cut to the column: to the characters of a VARCHAR or the bytes of a TEXT."""
    length = getattr(table.c[key].type, "length", None)
    if length is not None:
        return text[:length]
    if len(text) * _WIDEST <= TEXT_BYTES:
        return text
    raw = text.encode("utf-8", "surrogatepass")
    return text if len(raw) <= TEXT_BYTES else raw[:TEXT_BYTES].decode("utf-8", "ignore")


def agent_interval(packet: Packet) -> int:
    """The packet's interval in seconds, 300 if it has none."""
    return to_int(packet.interval) or DEFAULT_INTERVAL


def addresses(packet: Packet) -> list[str]:
    """The packet's addresses in order, without blanks and duplicates, limited in number."""
    parts = (part.strip() for part in (packet.address or "").split(","))
    return list(dict.fromkeys(part for part in parts if part))[:_MOST_ADDRESSES]


def extended_info(module: Module) -> str:
    """The tags without a column in Pandora, in the format of ``extended_info``."""
    extra = (
        f"{tag}: {text}<br/>"
        for tag, text in module.tags.items()
        if tag not in _KNOWN and not tag.endswith("_forced")
    )
    return fit(schema.module, "extended_info", "".join(extra))


def module_interval(module: Module, interval: int) -> int:
    """Seconds between values of ``module`` of an agent with ``interval``."""
    cron = module.tags.get("cron_interval", "")
    if cron.strip().isdecimal() and cron.isascii():
        return to_int(cron)
    factor = parse_number(module.tags.get("module_interval", ""))
    if factor is None:
        return interval
    return int(min(max(interval * factor, 0), _INT_MAX))


def cron_interval(module: Module) -> str:
    """A new module's cron expression, else the number that its packet gives instead."""
    crontab = module.tags.get("crontab", "").strip()
    return crontab if _CRONTAB.fullmatch(crontab) else module.tags.get("cron_interval", "")


def new_agent(packet: Packet, name: str, now_text: str) -> dict[str, Any]:
    """The columns of a new agent's row that follow from the packet alone."""
    first = addresses(packet)[:1]
    table = schema.agent
    alias = entities.encode(entities.clean_name(packet.alias)) if packet.alias else name
    return {
        "name": name,
        "alias": fit(table, "alias", alias),
        "address": fit(table, "address", first[0] if first else ""),
        "description": fit(table, "description", packet.description or ""),
        "mode": to_int(packet.agent_mode, 0, 2) if (packet.agent_mode or "").strip() else 1,
        "interval": agent_interval(packet),
        "custom_id": fit(table, "custom_id", packet.custom_id or ""),
        "url_address": packet.url_address and fit(table, "url_address", packet.url_address),
        "timezone_offset": timezone_offset(packet),
        "contact": now_text,
    }


def timezone_offset(packet: Packet) -> int:
    """The packet's time zone offset in whole hours, limited to the column."""
    return to_int(packet.timezone_offset, -128, 127)


#: The conversions of the tags with a column of the same name.
_READERS: dict[str, Callable[[str], object]] = {
    **{tag: partial(fit, schema.module, tag) for tag in _TEXT_TAGS},
    **dict.fromkeys(_FLOAT_TAGS, to_float),
    **dict.fromkeys(_BIG_TAGS, to_big),
    **dict.fromkeys(_INT_TAGS, to_int),
    **dict.fromkeys(_FLAG_TAGS, partial(to_int, low=0, high=127)),
}
#: The columns of a module whose packet does not set them.
_DEFAULTS: dict[str, object] = {
    **dict.fromkeys((*_FLOAT_TAGS, *_BIG_TAGS, *_INT_TAGS, *_FLAG_TAGS), 0),
    **dict.fromkeys(_TEXT_TAGS),
    **dict.fromkeys((*_EMPTY_TAGS, *_EMPTY), ""),
}


def unread(module: Module) -> list[str]:
    """The tags of a new module that should be numbers but are invalid, and count as zero."""
    return [
        tag
        for tag, text in module.tags.items()
        if (tag in _FLOATS and text.strip() and parse_number(text) is None)
        or (tag in _INTEGERS and text.strip() and _LEADING_INT.match(text) is None)
    ]


def new_module(module: Module, name: str, interval: int) -> dict[str, Any]:
    """The columns of a new module's row that follow from the packet and its agent's interval."""
    tags, table = module.tags, schema.module
    row: dict[str, Any] = {
        **_DEFAULTS,
        "name": name,
        "description": fit(table, "description", tags.get("description", "")),
        "extended_info": extended_info(module),
        "module_interval": module_interval(module, interval),
        "cron_interval": fit(table, "cron_interval", cron_interval(module)),
        "server_kind": 1,
    }
    for tag, text in tags.items():
        read = _READERS.get(tag)
        if read is not None:
            row[tag] = read(text)
    return row
