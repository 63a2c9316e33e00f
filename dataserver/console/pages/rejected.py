"""Rejected packets: which, why, and what is in them; they are retried and dropped by command."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from dataserver.console import params
from dataserver.console.html import page
from dataserver.console.replies import begun, reply
from dataserver.console.views import rejected as views
from dataserver.errors import Reason, UsageError

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
    shown = views.rejected(request.app.state.source, instance, reason, number)
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
    return reply(views.rejected(request.app.state.source, *_asked(request)))


def one_page(request: Request) -> Response:
    """One of them."""
    return page(request, "rejected_one.html", shown=_one(request))


def one_json(request: Request) -> Response:
    """The same."""
    return reply(_one(request))


def content(request: Request) -> Response:
    """Its bytes, as a file to be saved: never shown as whatever it says it is."""
    shown = _one(request)
    folder = views.folder_of(request.app.state.source, shown.instance)
    headers = {"content-disposition": f'attachment; filename="{shown.packet.id}.data"'}
    media = "application/octet-stream"
    if request.method == "HEAD":
        return Response(headers=headers, media_type=media)
    try:
        pieces = begun(folder.pieces(shown.packet.id))
    except (UsageError, FileNotFoundError) as error:
        raise params.NotThere("this rejected packet is not there any more") from error
    return StreamingResponse(pieces, headers=headers, media_type=media)


def _one(request: Request) -> views.RejectedContent:
    found = request.path_params
    return views.one(request.app.state.source, found["instance"], found["rid"])


_ONE = "/rejected/{instance}/{rid}"
routes: list[BaseRoute] = [
    Route("/rejected", rejected_page, methods=["GET"]),
    Route(_ONE, one_page, methods=["GET"]),
    Route(f"{_ONE}/content", content, methods=["GET"]),
    Route("/api/rejected", rejected_json, methods=["GET"]),
    Route(f"/api{_ONE}", one_json, methods=["GET"]),
]
