"""Small packets for tests: what each module carries, minute by minute from a fixed start."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from dataserver.model import Arrival
from tests.support.ingest import arrival

#: 2026-01-01 00:00:00 UTC.
START = 1_767_225_600

Value = str | list[tuple[str, str]]


def packet(
    minute: int, values: dict[str, Value], *, agent: str = "web1", types: str = "", **root: str
) -> Arrival:
    """A packet of ``minute`` minutes after the start, one module for each value.

    ``types`` is "_string" and the like; a list of (value, time) becomes a ``datalist``.
    """
    stamp = f"2026/01/01 {minute // 60:02}:{minute % 60:02}:00"
    told = {"agent_name": agent, "timestamp": stamp, "os_name": "Linux", **root}
    body = "".join(_module(name, f"generic_data{types}", value) for name, value in values.items())
    attributes = " ".join(f"{name}={quoteattr(value)}" for name, value in told.items())
    return arrival(f"<agent_data {attributes}>{body}</agent_data>".encode())


def _module(name: str, type_name: str, value: Value) -> str:
    if isinstance(value, str):
        data = f"<data>{escape(value)}</data>"
    else:
        listed = (f"<data><value>{v}</value><timestamp>{t}</timestamp></data>" for v, t in value)
        data = f"<datalist>{''.join(listed)}</datalist>"
    return f"<module><name>{escape(name)}</name><type>{type_name}</type>{data}</module>"
