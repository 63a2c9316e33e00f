"""The console's own figures: each route is counted by its pattern, whatever is asked for."""

from __future__ import annotations

from pathlib import Path

from dataserver.console.source import Source
from tests.support.consoles import serving
from tests.support.databases import SQLITE, opened
from tests.support.server import Place


def test_routes_are_counted_by_their_patterns_whatever_paths_are_asked_for(tmp_path: Path) -> None:
    with opened(SQLITE, tmp_path / "home") as database:
        place = Place(database.home, database.url)
        with serving(Source(place.home, {})) as client:
            for path in (
                "/",
                "/agents/1",
                "/agents/2",
                "/x%22%7D%201%0A",
                "/y",
                "/static/console.css",
            ):
                client.get(path)
            client.post("/")
            client.get("/api/none")
            lines = client.get("/metrics").text.splitlines()
    name = "dataserver_console_requests_total"
    assert {line for line in lines if line.startswith(f"{name}{{")} == {
        f'{name}{{route="",code="404"}} 2',
        f'{name}{{route="/",code="200"}} 1',
        f'{name}{{route="/",code="405"}} 1',
        f'{name}{{route="/agents/{{id:int}}",code="404"}} 2',
        f'{name}{{route="/api/{{rest:path}}",code="404"}} 1',
        f'{name}{{route="/static",code="200"}} 1',
    }
    assert "dataserver_console_database_up 1" in lines
