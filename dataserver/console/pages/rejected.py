"""The pages of rejected packets of all instances; commands retry and drop them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from dataserver.console import params
from dataserver.console.html import page
from dataserver.console.params import NotFound, source_of
from dataserver.console.replies import begun, reply
from dataserver.console.source import Source
from dataserver.errors import Reason, UsageError
from dataserver.logs import printable
from dataserver.spool.rejected import Rejected, RejectedPacket

#: Packets per page, and bytes of a packet that its page shows.
PAGE = 100
SHOWN = 64 * 1024
_REASONS = tuple(reason.value for reason in Reason)
_ONE = "/rejected/{instance}/{rid}"


@dataclass(frozen=True, slots=True)
class Listed:
    """A rejected packet, and its instance."""

    instance: str
    packet: RejectedPacket


@dataclass(frozen=True, slots=True)
class RejectedList:
    """A page of rejected packets, newest first; pages count from 1.

    ``unreadable`` are the instances whose packets cannot be read.
    """

    packets: tuple[Listed, ...]
    total: int
    page: int
    pages: int
    instances: tuple[str, ...]
    unreadable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RejectedContent:
    """A rejected packet with its first :data:`SHOWN` bytes as text."""

    instance: str
    packet: RejectedPacket
    content: str
    is_whole: bool


def rejected(source: Source, instance: str, reason: str, page: int) -> RejectedList:
    """A page of the packets of an instance and with a reason; "" means all."""
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
    """A packet with its content; raises NotFound."""
    folder = folder_of(source, instance)
    try:
        packet = folder.show(rid)
        content = folder.content(rid, SHOWN + 1)
    except (UsageError, FileNotFoundError) as error:
        raise NotFound(f"there is no rejected packet {rid!a} of {instance!a} (any more)") from error
    text = content[:SHOWN].decode("utf-8", "backslashreplace")
    return RejectedContent(instance, packet, _visible(text), len(content) <= SHOWN)


def folder_of(source: Source, instance: str) -> Rejected:
    """The rejected packets of an existing instance; raises NotFound."""
    if instance not in source.home.instance_names():
        raise NotFound(f"there is no instance {instance!a}")
    return Rejected(source.home.instance(instance).rejected)


def _listed(found: list[tuple[str, str, Rejected]]) -> Iterator[Listed]:
    for rid, name, folder in found:
        try:
            yield Listed(name, folder.show(rid))
        except UsageError:
            continue  # retried or dropped meanwhile


def _visible(text: str) -> str:
    """The text with invisible characters, and those that change their surroundings, escaped."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in lines)


# -- the pages and their twins under /api/ --


def rejected_page(request: Request) -> Response:
    """The HTML page of the list."""
    instance, reason, number = _asked(request)
    shown = rejected(source_of(request), instance, reason, number)
    return page(
        request,
        "rejected.html",
        shown=shown,
        instance=instance,
        reason=reason,
        reasons=_REASONS,
    )


def rejected_json(request: Request) -> Response:
    """The list as JSON."""
    return reply(rejected(source_of(request), *_asked(request)))


def _asked(request: Request) -> tuple[str, str, int]:
    return (
        params.text(request, "instance", 64),
        params.choice(request, "reason", _REASONS),
        params.integer(request, "page", 1, 1, 1_000_000),
    )


def one_page(request: Request) -> Response:
    """The HTML page of one packet."""
    return page(request, "rejected_one.html", shown=_one(request))


def one_json(request: Request) -> Response:
    """One packet as JSON."""
    return reply(_one(request))


def content(request: Request) -> Response:
    """The packet's bytes as a download: a browser must never interpret them."""
    shown = _one(request)
    folder = folder_of(source_of(request), shown.instance)
    headers = {"content-disposition": f'attachment; filename="{shown.packet.id}.data"'}
    media = "application/octet-stream"
    if request.method == "HEAD":
        return Response(headers=headers, media_type=media)
    try:
        pieces = begun(folder.pieces(shown.packet.id))
    except (UsageError, FileNotFoundError) as error:
        raise NotFound("this rejected packet no longer exists") from error
    return StreamingResponse(pieces, headers=headers, media_type=media)


def _one(request: Request) -> RejectedContent:
    found = request.path_params
    return one(source_of(request), found["instance"], found["rid"])


routes: list[BaseRoute] = [
    Route("/rejected", rejected_page, methods=["GET"]),
    Route(_ONE, one_page, methods=["GET"]),
    Route(f"{_ONE}/content", content, methods=["GET"]),
    Route("/api/rejected", rejected_json, methods=["GET"]),
    Route(f"/api{_ONE}", one_json, methods=["GET"]),
]
