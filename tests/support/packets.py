"""Packets for tests: the bytes that an agent sends, and what the store is handed of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from xml.sax.saxutils import escape, quoteattr

from dataserver.model import Arrival
from tests.support.ingest import arrival

#: 2026-01-01 00:00:00 UTC.
START = 1_767_225_600

#: A value, or values with times of their own: (value, epoch seconds or a time as written).
Value = str | Sequence[tuple[str, int | str]]


def stamp(time: int) -> str:
    """Epoch seconds as packets write them, in UTC."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y/%m/%d %H:%M:%S")


def module(name: str, value: Value | None = "1", kind: str = "generic_data", **tags: object) -> str:
    """One module; ``value`` None: it has none.  ``tags`` are added as elements."""
    if value is None:
        data = ""
    elif isinstance(value, str):
        data = f"<data>{escape(value)}</data>"
    else:
        listed = (
            f"<data><value>{escape(each)}</value><timestamp>{_written(time)}</timestamp></data>"
            for each, time in value
        )
        data = f"<datalist>{''.join(listed)}</datalist>"
    more = "".join(f"<{tag}>{escape(str(text))}</{tag}>" for tag, text in tags.items())
    return f"<module><name>{escape(name)}</name><type>{kind}</type>{data}{more}</module>"


def packet(agent: str, *content: str, time: int | None = None, **attributes: object) -> bytes:
    """A packet with modules and other elements; without ``time``, its file's time counts."""
    said: dict[str, object] = {"agent_name": agent}
    if time is not None:
        said["timestamp"] = stamp(time)
    said |= attributes
    root = " ".join(f"{name}={quoteattr(str(text))}" for name, text in said.items())
    return f"<agent_data {root}>{''.join(content)}</agent_data>".encode()


def arrival_at(
    minute: int, values: dict[str, Value], *, agent: str = "web1", types: str = "", **root: str
) -> Arrival:
    """A packet of ``minute`` minutes after the start, as the store is handed it.

    One module for each value; ``types`` is "_string" and the like.
    """
    modules = (module(name, value, f"generic_data{types}") for name, value in values.items())
    attributes = {"os_name": "Linux", **root}
    return arrival(packet(agent, *modules, time=START + 60 * minute, **attributes))


def _written(time: int | str) -> str:
    return stamp(time) if isinstance(time, int) else time
