"""HTML pages from the package's templates; all values are escaped.

The only module of the console that imports Jinja2.  Source: https://jinja.palletsprojects.com/
"""

from __future__ import annotations

from datetime import datetime, tzinfo
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from dataserver import __version__
from dataserver.console.graph_view import zone_name
from dataserver.errors import DataserverError
from dataserver.logs import printable
from dataserver.rules.moments import age_text, duration_text


def page(request: Request, name: str, /, status: int = 200, **values: Any) -> HTMLResponse:
    """The template ``name`` filled in."""
    source = request.app.state.source
    try:
        zone = source.zone
    except (DataserverError, OSError):
        zone = None
    now = source.now()
    given = {
        "now": now,
        "zone": zone,
        "zone_name": "" if zone is None else zone_name(zone, now),
        "path": request.url.path,
        "version": __version__,
        **values,
    }
    shown = _environment().get_template(name).render(given)
    # Bytes that are not characters, such as in file names, are shown as escapes.
    return HTMLResponse(shown.encode("utf-8", "backslashreplace"), status)


def when(time: float | None, zone: tzinfo | None) -> Markup | str:
    """A time (epoch seconds) in the zone, as a <time> element."""
    if time is None:
        return "never"
    try:
        local = datetime.fromtimestamp(time, zone)
    except (OverflowError, ValueError, OSError):
        return "-"
    shown = Markup('<time datetime="{}">{}</time>')
    return shown.format(local.isoformat(timespec="seconds"), f"{local:%Y-%m-%d %H:%M:%S}")


@pass_context
def _when(context: Context, time: float | None) -> Markup | str:
    return when(time, context["zone"])


@pass_context
def _ago(context: Context, time: float | None) -> str:
    if time is None:
        return "never"
    text = age_text(context["now"] - time)
    return text if text.endswith("ahead") else f"{text} ago"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("dataserver.console"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"ago": _ago, "duration": duration_text}
    environment.filters |= {"visible": printable, "when": _when}
    environment.globals["dict"] = dict
    return environment
