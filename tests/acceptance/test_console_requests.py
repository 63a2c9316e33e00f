"""What the console answers: what every answer has, odd requests, rejected packets, figures."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace

import httpx
import pytest
from starlette.responses import StreamingResponse
from starlette.routing import Route

from dataserver.config.paths import Home
from dataserver.console import app
from dataserver.console.app import POLICY
from dataserver.console.source import Source
from dataserver.runtime.metrics import Counters, Gauges, prometheus
from tests.support.consoles import OPEN, ROUTES, Console, check_headers, rejected, serving, shown
from tests.support.databases import SQLITE, opened
from tests.support.exhibits import SCRIPT
from tests.support.failures import failures
from tests.support.server import Place
from tests.support.waiting import PATIENCE
from tests.unit.test_console_exposition import parsed

#: Names and texts of packets, each cruel in its own way.
HOSTILE = (
    SCRIPT,
    "\"'><img src=x onerror=window.hacked=1>",
    "{{ 7 * 7 }} {% raw %}",
    "\u202egnp.exe",
    "\x1b]0;title\x07\x1b[2J",
    "\udcff\udc80\ud800",
    "\x00\x7f\x85\u2028",
    "../../etc/passwd",
    "",
    "x" * 600,
)
#: The pages above, and the one for all.
CODES = {**ROUTES, OPEN: 200}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A home with a database, an agent-less one."""
    root = tmp_path_factory.mktemp("requests") / "home"
    with opened(SQLITE, root) as database:
        yield Place(root, database.url)


@pytest.fixture(scope="module")
def console(place: Place) -> Iterator[Console]:
    """One without users, for all tests here: the command, with the limits that it has."""
    with shown(place) as console:
        yield console


# -- what every answer has -----------------------------------------------------


def test_every_answer_tells_browsers_what_not_to_do_with_it(console: Console) -> None:
    def check(path: str) -> None:
        answer = console.client.get(path)
        assert answer.status_code == CODES[path]
        check_headers(answer)
        assert "server" not in answer.headers
        kept = path.startswith("/static/") and answer.status_code == 200
        assert answer.headers["cache-control"] == ("private, max-age=300" if kept else "no-store")
        if path.startswith("/api/") and answer.status_code >= 400:
            assert list(answer.json()) == ["error"]

    assert failures(check, CODES) == {}
    assert "'unsafe" not in POLICY
    assert "default-src 'none'" in POLICY


def test_the_head_of_an_answer_can_be_asked_for(console: Console) -> None:
    def check(path: str) -> None:
        answer = console.client.head(path)
        assert answer.status_code == CODES[path]
        assert answer.content == b""
        check_headers(answer)
        assert answer.headers["content-type"] == console.client.get(path).headers["content-type"]

    assert failures(check, CODES) == {}


def test_nothing_can_be_done_but_look(console: Console) -> None:
    def check(asked: tuple[str, str]) -> None:
        answer = console.client.request(*asked, content=b"x")
        assert answer.status_code == 405
        assert set(answer.headers["allow"].replace(" ", "").split(",")) == {"GET", "HEAD"}
        check_headers(answer)

    methods = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND")
    paths = (
        *("/", "/agents", "/rejected/main/x", "/api/servers", "/metrics"),
        "/static/console.css",
    )
    assert failures(check, [(method, path) for method in methods for path in paths]) == {}


def test_an_error_that_nobody_foresaw_tells_nothing_and_has_the_headers(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("secret")

    def half(_: object) -> StreamingResponse:
        def pieces() -> Iterator[bytes]:
            yield b"begun"
            raise ZeroDivisionError("secret")

        return StreamingResponse(pieces())

    routes = [Route("/broken", broken), Route("/api/broken", broken), Route("/half", half)]
    monkeypatch.setattr(app, "_PAGES", (SimpleNamespace(routes=routes), *app._PAGES))
    with serving(Source(Home(place.home.root), {})) as client:
        page, programs = client.get("/broken"), client.get("/api/broken")
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/half")
        figures = client.get("/metrics").text
    for answer in (page, programs):
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert "Traceback" not in answer.text
        check_headers(answer)
    assert programs.json() == {"error": "internal error of the console; see its log"}
    assert figures.count('code="500"') == 2
    told = [each for each in caplog.records if each.name.startswith("dataserver")]
    assert [each.getMessage() for each in told] == [
        "/broken failed",
        "/api/broken failed",
        "/half broke off",
    ]
    assert all(each.exc_info for each in told)


# -- odd requests --------------------------------------------------------------

NOWHERE = (
    "/static/../app.py",
    "/static/%2e%2e/app.py",
    "/static/..%2fapp.py",
    "/static/..%5capp.py",
    "/static//etc/passwd",
    "/static/%2fetc%2fpasswd",
    "/static/%00",
    "/static/console.css%00.js",
    "/static/" + "a" * 300,
    "/static/vendor",
    "/rejected/../var/x",
    "/rejected/main/..%2f..%2fdataserver.toml",
    "/rejected/main/%00",
    "/rejected/%2e%2e/x",
    "/rejected/..%2fmain/x",
    "/rejected/main/..%2f..%2f..%2fdataserver.toml/content",
    "/api/rejected/main/..%2fstatus",
    "/api/rejected/nowhere/x",
    "/agents/-1",
    "/agents/1.5",
    "/agents/9223372036854775808",
    "/agents/%D9%A1",
    "/modules/0x1",
    "/api/..",
)


def test_a_path_that_leads_nowhere_leads_nowhere(console: Console) -> None:
    def check(path: str) -> None:
        status, text = console.raw(path)
        assert status == 404
        assert "root:" not in text
        assert "database =" not in text

    assert failures(check, NOWHERE) == {}


def test_a_path_or_query_without_end_is_refused(console: Console) -> None:
    def check(path: str) -> None:
        assert console.raw(path + "9" * 5000)[0] == 414
        # As it comes in one piece or in several.
        assert console.raw(path + "9" * 60_000)[0] in {400, 414}

    assert failures(check, ["/agents/", "/modules/", "/api/agents/", "/static/", "/x"]) == {}
    assert console.raw("/agents?q=" + "9" * 5000)[0] == 400
    assert console.client.get("/").status_code == 200


def test_an_odd_page_is_refused_with_what_is_allowed(console: Console) -> None:
    def check(number: str) -> None:
        for path in ("/agents", "/rejected"):
            answer = console.client.get(f"{path}?page={number}")
            assert answer.status_code == 400
            assert "page" in answer.text
            assert "<script>" not in answer.text
            said = console.client.get(f"/api{path}?page={number}")
            assert (said.status_code, list(said.json())) == (400, ["error"])

    odd = ["0", "-1", "1.5", "1e3", "9" * 25, "%D9%A1", "%00", "1000001", "%3Cscript%3E"]
    assert failures(check, odd) == {}


def test_a_page_beyond_the_last_one_is_the_last_one(console: Console) -> None:
    for path in ("/api/agents", "/api/rejected"):
        found = console.client.get(f"{path}?page=99999").json()
        assert found["page"] == found["pages"]


def test_an_odd_span_or_width_is_refused(console: Console) -> None:
    def check(query: str) -> None:
        answer = console.client.get(f"/api/modules/1/graph?{query}")
        assert answer.status_code == 400
        assert list(answer.json()) == ["error"]

    odd = [
        "from=now&to=-1h",
        "from=0&to=9999999999",
        "from=x",
        "to=%00",
        "from=" + "1" * 100,
        "from=2026-13-01",
        "width=0",
        "width=4001",
        "width=x",
    ]
    assert failures(check, odd) == {}


def test_a_query_of_any_bytes_is_no_error_inside(console: Console) -> None:
    for query in ("q=%ff%fe", "q=%ed%a0%80", "=&&==&", "q", "%00=%00", "q=" + "%25" * 100):
        for path in ("/agents", "/api/agents", "/events", "/api/rejected", "/"):
            assert console.raw(f"{path}?{query}")[0] in {200, 400}, (path, query)


def test_what_is_no_request_ends_its_own_connection_only(console: Console) -> None:
    for sent in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"\0" * 1000):
        with socket.create_connection(console.address, timeout=PATIENCE) as connection:
            connection.sendall(sent)
            assert connection.recv(12) == b"HTTP/1.1 400"
    assert console.client.get("/healthz").text == "ok\n"


# -- rejected packets ----------------------------------------------------------


def test_a_rejected_packet_is_shown_whatever_it_is_called_and_runs_nothing(
    console: Console,
) -> None:
    def check(name: str) -> None:
        coding = "surrogateescape" if "\ud800" not in name else "surrogatepass"
        content = name.encode("utf-8", coding)
        rid = rejected(console.place, name, content=content)
        listed = console.client.get("/api/rejected?reason=malformed").json()
        found = next(each["packet"] for each in listed["packets"] if each["packet"]["id"] == rid)
        whole = name.encode("utf-8", "backslashreplace").decode()
        assert (found["name"], found["agent"]) == (whole, f"agent {whole}")
        for path in ("/rejected", f"/rejected/main/{rid}"):
            page = console.client.get(path)
            assert page.status_code == 200
            text = page.content.decode("utf-8")
            assert SCRIPT not in text
            assert "<img" not in text
            assert not set(text) & set("\u202e\x1b\x07\x00\x7f\x85\u2028")
        one = console.client.get(f"/api/rejected/main/{rid}").json()
        assert one["packet"]["detail"] == f"detail {whole}"
        saved = console.client.get(f"/rejected/main/{rid}/content")
        assert saved.content == content

    assert failures(check, HOSTILE) == {}


def test_the_content_of_a_rejected_packet_is_saved_and_never_shown_as_what_it_claims_to_be(
    console: Console,
) -> None:
    content = b"<html>" + SCRIPT.encode() + bytes(range(256)) * 1000
    rid = rejected(console.place, 'x".html', content=content)
    for answer in (
        console.client.get(f"/rejected/main/{rid}/content"),
        console.client.head(f"/rejected/main/{rid}/content"),
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"] == f'attachment; filename="{rid}.data"'
        check_headers(answer)
    assert console.client.get(f"/rejected/main/{rid}/content").content == content
    page = console.client.get(f"/rejected/main/{rid}").text
    assert "Only its beginning is shown" in page
    assert SCRIPT not in page


def test_a_damaged_reason_hides_no_packet(console: Console) -> None:
    def check(damage: bytes) -> None:
        rid = rejected(console.place, "whole.1.data", content=b"abc")
        reason = console.place.paths().rejected / f"{rid}.json"
        reason.write_bytes(damage)
        assert "missing or damaged" in console.client.get(f"/rejected/main/{rid}").text
        assert "missing or damaged" in console.client.get("/rejected").text
        one = console.client.get(f"/api/rejected/main/{rid}").json()
        assert (one["content"], one["packet"]["size"]) == ("abc", 3)
        reason.with_suffix(".data").unlink()
        reason.unlink()

    damages = [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"size": Infinity}',
        b'{"size": 1e999, "reason": "malformed", "detail": "", "name": ""}',
    ]
    assert failures(check, damages) == {}


def test_a_packet_that_is_gone_is_not_there(console: Console) -> None:
    rid = rejected(console.place, "gone.1.data")
    for path in console.place.paths().rejected.glob(f"{rid}.*"):
        path.unlink()
    for path in (f"/rejected/main/{rid}", f"/rejected/main/{rid}/content"):
        assert console.client.get(path).status_code == 404


# -- figures -------------------------------------------------------------------


def test_the_figures_of_all_instances_are_there_while_they_are(
    place: Place, console: Console
) -> None:
    for number, name in enumerate(("main", "second"), 1):
        paths = place.paths(name) if name == "main" else place.add(name)
        paths.var.mkdir(parents=True, exist_ok=True)
        labels = {"instance": name, "server": 'a"b\\c\u2028d\ne'}
        paths.metrics.write_text(prometheus(Counters(packets=number), Gauges(), labels))
    answer = console.client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = parsed(answer.text)
    totals = {name: value for name, value in found.items() if "packets_total" in name}
    assert sorted(totals.values()) == [1, 2]
    assert found["dataserver_console_database_up{}"] == 1
    second = place.paths("second")
    second.metrics.write_bytes(b"\xff\xfe" + b'dataserver_packets_total{instance="second"} ')
    assert 'instance="second"' not in console.client.get("/metrics").text
    second.config.unlink()
    found = parsed(console.client.get("/metrics").text)
    assert any('instance="main"' in name for name in found)
