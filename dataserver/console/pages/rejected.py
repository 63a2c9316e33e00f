"""Rejected packets: which, why, and what is in them; they are retried and dropped by command."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from dataserver.console import params
from dataserver.console.html import page
from dataserver.console.params import NotFound
from dataserver.console.replies import begun, reply
from dataserver.console.source import Source
from dataserver.errors import Reason, UsageError
from dataserver.logs import printable
from dataserver.spool.rejected import Rejected, RejectedPacket

# -- rejected packets of all instances of the home, and the content of one

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
        raise NotFound(f"there is no instance {instance!r}")
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
        raise NotFound(f"there is no rejected packet {rid!a} of {instance!a} (any more)") from error
    text = content[:SHOWN].decode("utf-8", "backslashreplace")
    return RejectedContent(instance, packet, _visible(text), len(content) <= SHOWN)


def folder_of(source: Source, instance: str) -> Rejected:
    """The rejected packets of an instance that exists; NotThere."""
    if instance not in source.home.instance_names():
        raise NotFound(f"there is no instance {instance!a}")
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


# -- rejected --

_REASONS = tuple(reason.value for reason in Reason)


def _asked(request: Request) -> tuple[str, str, int]:
    return (
        params.text(request, "instance", 64),
        params.choice(request, "reason", _REASONS),
        params.integer(request, "page", 1, 1, 1_000_000),
    )


def rejected_page(request: Request) -> Response:
    """A page of them."""
    instance, reason, number = _asked(request)
    shown = rejected(request.app.state.source, instance, reason, number)
    return page(
        request,
        "rejected.html",
        shown=shown,
        instance=instance,
        reason=reason,
        reasons=_REASONS,
    )


def rejected_json(request: Request) -> Response:
    """The same."""
    return reply(rejected(request.app.state.source, *_asked(request)))


def one_page(request: Request) -> Response:
    """One of them."""
    return page(request, "rejected_one.html", shown=_one(request))


def one_json(request: Request) -> Response:
    """The same."""
    return reply(_one(request))


def content(request: Request) -> Response:
    """Its bytes, as a file to be saved: never shown as whatever it says it is."""
    shown = _one(request)
    folder = folder_of(request.app.state.source, shown.instance)
    headers = {"content-disposition": f'attachment; filename="{shown.packet.id}.data"'}
    media = "application/octet-stream"
    if request.method == "HEAD":
        return Response(headers=headers, media_type=media)
    try:
        pieces = begun(folder.pieces(shown.packet.id))
    except (UsageError, FileNotFoundError) as error:
        raise params.NotFound("this rejected packet is not there any more") from error
    return StreamingResponse(pieces, headers=headers, media_type=media)


def _one(request: Request) -> RejectedContent:
    found = request.path_params
    return one(request.app.state.source, found["instance"], found["rid"])


_ONE = "/rejected/{instance}/{rid}"
routes: list[BaseRoute] = [
    Route("/rejected", rejected_page, methods=["GET"]),
    Route(_ONE, one_page, methods=["GET"]),
    Route(f"{_ONE}/content", content, methods=["GET"]),
    Route("/api/rejected", rejected_json, methods=["GET"]),
    Route(f"/api{_ONE}", one_json, methods=["GET"]),
]
