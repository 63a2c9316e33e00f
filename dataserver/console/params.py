"""The parameters of a request, from its path and query, checked; errors are UsageErrors."""

from __future__ import annotations

from collections.abc import Collection

from starlette.requests import Request

from dataserver.console.source import Source
from dataserver.errors import UsageError
from dataserver.graphs.model import Span
from dataserver.rules.moments import moment

#: The highest id and time that any database has.
_HIGHEST = 2**63 - 1
#: The longest span of a graph, in seconds: a hundred years.
_LONGEST = 100 * 366 * 86_400


class NotFound(UsageError):
    """The requested object does not exist (any more)."""


def source_of(request: Request) -> Source:
    """The source of the console that serves the request."""
    source: Source = request.app.state.source
    return source


def text(request: Request, name: str, longest: int = 200) -> str:
    """A text of the query, or "" without it."""
    found = request.query_params.get(name, "").strip()
    if len(found) > longest:
        raise UsageError(f"{name} is longer than {longest} characters")
    return found


def integer(request: Request, name: str, default: int, low: int = 0, high: int = _HIGHEST) -> int:
    """A whole number of the query; UsageError if it is invalid or outside [low, high]."""
    found = text(request, name, 20)
    if not found:
        return default
    if not found.isascii() or not found.isdecimal() or not low <= int(found) <= high:
        raise UsageError(f"{name} must be a whole number from {low} to {high}, not {found!r}")
    return int(found)


def choice(request: Request, name: str, allowed: Collection[str], default: str = "") -> str:
    """One of ``allowed``, or the default."""
    found = text(request, name)
    if found in ("", default):
        return default
    if found not in allowed:
        raise UsageError(f"{name} must be one of {', '.join(allowed)}, not {found!r}")
    return found


def flag(request: Request, name: str) -> bool:
    """Whether the query sets it to 1, true, yes or on."""
    return text(request, name).lower() in ("1", "true", "yes", "on")


def path_id(request: Request, name: str = "id") -> int:
    """An id of the path; NotFound if no row can have it."""
    found = int(request.path_params[name])
    if found > _HIGHEST:
        raise NotFound(f"there is nothing with the id {found}")
    return found


def span(request: Request, source: Source, seconds: int) -> Span:
    """The span from ``from`` to ``to``; without them the last ``seconds`` until now.

    Epoch seconds, or as in ``dataserver series`` ("-7d", "2026-01-31 12:00").
    """
    now, zone = source.now(), source.zone
    first, last = text(request, "from", 40), text(request, "to", 40)
    end = moment(last, now=now, zone=zone, later=True) if last else now
    start = moment(first, now=now, zone=zone) if first else max(0, end - seconds)
    if start >= end:
        raise UsageError("the span must end after it begins")
    if end - start > _LONGEST:
        raise UsageError("the span is longer than a hundred years")
    return Span(start, end)
