"""Rejected packets of all instances of the home, and the content of one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dataserver.console.params import NotThere
from dataserver.console.source import Source
from dataserver.errors import Reason, UsageError
from dataserver.logs import printable
from dataserver.spool.reasons import RejectedPacket
from dataserver.spool.rejected import Rejected

#: Packets of one page, and bytes of a packet that a page shows.
PAGE = 100
SHOWN = 64 * 1024


@dataclass(frozen=True, slots=True)
class Listed:
    """A rejected packet, and whose it is."""

    instance: str
    packet: RejectedPacket


@dataclass(frozen=True, slots=True)
class RejectedList:
    """A page of them, newest first; ``pages`` from 1.  ``unreadable``: instances not looked at."""

    packets: tuple[Listed, ...]
    total: int
    page: int
    pages: int
    instances: tuple[str, ...]
    unreadable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RejectedContent:
    """One of them, with its first :data:`SHOWN` bytes as text."""

    instance: str
    packet: RejectedPacket
    content: str
    is_whole: bool


def rejected(source: Source, instance: str, reason: str, page: int) -> RejectedList:
    """Those of an instance and a reason, "" of all."""
    names = source.home.instance_names()
    if instance and instance not in names:
        raise NotThere(f"there is no instance {instance!r}")
    found: list[tuple[str, str, Rejected]] = []
    unreadable = []
    for name in [instance] if instance else names:
        folder = Rejected(source.home.instance(name).rejected)
        try:
            found += ((rid, name, folder) for rid in folder.ids(Reason(reason) if reason else None))
        except OSError:
            unreadable.append(name)
    # An id begins with its time.
    found.sort(key=lambda each: each[0], reverse=True)
    pages = max(1, -(-len(found) // PAGE))
    page = min(page, pages)
    shown = found[(page - 1) * PAGE : page * PAGE]
    return RejectedList(
        packets=tuple(_listed(shown)),
        total=len(found),
        page=page,
        pages=pages,
        instances=tuple(names),
        unreadable=tuple(unreadable),
    )


def one(source: Source, instance: str, rid: str) -> RejectedContent:
    """One packet with its content; NotThere."""
    folder = folder_of(source, instance)
    try:
        packet = folder.show(rid)
        content = folder.content(rid, SHOWN + 1)
    except (UsageError, FileNotFoundError) as error:
        raise NotThere(f"there is no rejected packet {rid!a} of {instance!a} (any more)") from error
    text = content[:SHOWN].decode("utf-8", "backslashreplace")
    return RejectedContent(instance, packet, _visible(text), len(content) <= SHOWN)


def folder_of(source: Source, instance: str) -> Rejected:
    """The rejected packets of an instance that exists; NotThere."""
    if instance not in source.home.instance_names():
        raise NotThere(f"there is no instance {instance!a}")
    return Rejected(source.home.instance(instance).rejected)


def _listed(found: list[tuple[str, str, Rejected]]) -> Iterator[Listed]:
    for rid, name, folder in found:
        try:
            yield Listed(name, folder.show(rid))
        except UsageError:
            continue  # taken back or dropped meanwhile


def _visible(text: str) -> str:
    """What would not be seen, or would change what is seen around it, by its number."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in lines)
