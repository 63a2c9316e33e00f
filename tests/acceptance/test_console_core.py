"""`dataserver console` as a user starts it: its life, who may look, its answers, odd requests."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from urllib.parse import urlsplit

import bcrypt
import httpx
import pytest
from starlette.responses import StreamingResponse
from starlette.routing import Route

from dataserver.console import app
from dataserver.console.headers import POLICY
from dataserver.console.source import Source
from dataserver.errors import Reason
from dataserver.home import Home
from dataserver.metrics import Counters, Gauges, prometheus
from dataserver.spool.reasons import RejectedPacket, new_id
from tests.conftest import COMMAND, Run
from tests.support.consoles import running_console, serving
from tests.support.databases import SQLITE, Database, mariadb, mariadb_database, opened
from tests.support.exhibits import SCRIPT
from tests.support.server import PATIENCE, Place
from tests.unit.test_console_exposition import parsed

__all__ = ["mariadb", "mariadb_database"]

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
#: Every page there is, and what is none: with the code of its answer.
ROUTES = {
    "/": 200,
    "/agents": 200,
    "/agents/1": 404,
    "/events": 200,
    "/modules/1": 404,
    "/rejected": 200,
    "/rejected/main/none": 404,
    "/rejected/main/none/content": 404,
    "/api": 200,
    "/api/": 200,
    "/api/servers": 200,
    "/api/agents": 200,
    "/api/agents/1": 404,
    "/api/agents/1/access": 404,
    "/api/events": 200,
    "/api/modules/1": 404,
    "/api/modules/1/graph": 404,
    "/api/modules/1/data.csv": 404,
    "/api/rejected": 200,
    "/api/rejected/main/none": 404,
    "/api/nothing": 404,
    "/metrics": 200,
    "/static/console.css": 200,
    "/static/nothing.js": 404,
    "/static/": 404,
    "/nothing": 404,
    "/agents/": 404,
    "/agents?page=0": 400,
    "/rejected?reason=none": 400,
    "/events?since=never": 400,
}
#: Of these anybody may ask.
OPEN = "/healthz"


class Console(NamedTuple):
    """A console that runs, and a client of it."""

    url: str
    client: httpx.Client
    place: Place

    @property
    def address(self) -> tuple[str, int]:
        found = urlsplit(self.url)
        assert found.hostname is not None
        assert found.port is not None
        return found.hostname, found.port

    def raw(self, path: str, *, host: str | None = None, method: str = "GET") -> tuple[int, str]:
        """The answer to a path as it stands, which no client has tidied up."""
        connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=host is not None)
            if host is not None:
                connection.putheader("Host", host)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")


@contextlib.contextmanager
def shown(place: Place, *options: str) -> Iterator[Console]:
    with (
        running_console(place.home.root, *options) as url,
        httpx.Client(base_url=url, timeout=PATIENCE) as client,
    ):
        yield Console(url, client, place)


def rejected(place: Place, name: str, *, instance: str = "main", content: bytes = b"") -> str:
    """Put a packet among the rejected ones, its texts as cruel as its name; its id."""
    rid = new_id(time.time(), Reason.MALFORMED)
    packet = RejectedPacket(
        id=rid,
        reason=Reason.MALFORMED,
        detail=f"detail {name}",
        name=name,
        size=len(content),
        mtime=1.5,
        when=time.time(),
        agent=f"agent {name}",
        server=f"server {name}",
    )
    folder = place.paths(instance).rejected
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{rid}.json").write_bytes(packet.to_json())
    (folder / f"{rid}.data").write_bytes(content)
    return rid


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A home with a database, an agent-less one."""
    root = tmp_path_factory.mktemp("core") / "home"
    with opened(SQLITE, root) as database:
        database.prepare()
        yield Place(root, "sqlite:///var/dataserver.db")


@pytest.fixture(scope="module")
def console(place: Place) -> Iterator[Console]:
    """One without users, for all tests that only ask."""
    with shown(place) as console:
        yield console


def hashed(password: bytes, cost: int = 4) -> str:
    return bcrypt.hashpw(password[:72], bcrypt.gensalt(cost)).decode()


def wait_until(condition: Callable[[], object], what: str, look: float = 0.02) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited for: {what}"
        time.sleep(look)


# -- its life ------------------------------------------------------------------


@pytest.fixture
def process(place: Place) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [
            *("setpriv", "--pdeathsig", "KILL", str(COMMAND)),
            *("--home", str(place.home.root), "console", "--listen", "127.0.0.1:0"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_answers_and_ends_in_good_order_when_asked_to(
    process: subprocess.Popen[str], number: signal.Signals
) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("console: http://127.0.0.1:")
    assert httpx.get(f"{line.split()[1]}healthz", timeout=PATIENCE).text == "ok\n"
    process.send_signal(number)
    out, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, errors) == (0, "", "")


def test_it_ends_while_others_keep_their_connections_and_say_nothing(
    process: subprocess.Popen[str],
) -> None:
    assert process.stdout is not None
    found = urlsplit(process.stdout.readline().split()[1])
    address = (str(found.hostname), int(found.port or 0))
    with (
        socket.create_connection(address) as silent,
        socket.create_connection(address) as half,
        socket.create_connection(address) as kept,
    ):
        half.sendall(b"GET / HTTP/1.1\r\nHost: local")
        kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert kept.recv(12) == b"HTTP/1.1 200"
        process.terminate()
        assert process.wait(PATIENCE) == 0
        silent.settimeout(PATIENCE)
        assert silent.recv(1) == b""


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("dataserver: ")
    return lines[0]


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        ("127.0.0.1", "no HOST:PORT"),
        ("", "no HOST:PORT"),
        ("127.0.0.1:", "no HOST:PORT"),
        ("127.0.0.1:http", "no HOST:PORT"),
        ("127.0.0.1:65536", "no HOST:PORT"),
        ("127.0.0.1:-1", "no HOST:PORT"),
        ("127.0.0.1:" + "9" * 5000, "no HOST:PORT"),
        ("::1:8080", "no HOST:PORT"),
        ("nowhere.invalid:8080", "no address of this machine"),
        ("x" * 80 + ":8080", "no address of this machine"),
        ("a..b:8080", "no address of this machine"),
        ("0.0.0.0:0", "must log in"),
        ("[::]:0", "must log in"),
        (":0", "must log in"),
    ],
)
def test_an_address_that_will_not_do_is_told_in_a_line(
    dataserver: Run, place: Place, listen: str, why: str
) -> None:
    done = dataserver("--home", place.home.root, "console", "--listen", listen)
    assert done.returncode == 2
    assert why in one_line(done)


def test_a_port_that_is_taken_is_told_in_a_line(dataserver: Run, console: Console) -> None:
    host, port = console.address
    home = console.place.home.root
    done = dataserver("--home", home, "console", "--listen", f"{host}:{port}")
    assert done.returncode == 1
    assert f"cannot listen on {host} port {port}: Address already in use" in one_line(done)


def test_users_that_cannot_be_read_are_told_in_a_line(
    dataserver: Run, place: Place, tmp_path: Path
) -> None:
    users = tmp_path / "users"
    command = ("--home", place.home.root, "console", "--listen", ":0", "--users", users)
    done = dataserver(*command)
    assert done.returncode == 3
    assert f"cannot read the users file {users}" in one_line(done)
    users.write_text("ann:{SHA}secret\n")
    done = dataserver(*command)
    assert done.returncode == 3
    assert "line 1" in one_line(done)
    assert "secret" not in done.stderr


def test_an_instance_that_is_not_there_is_told_in_a_line(dataserver: Run, place: Place) -> None:
    done = dataserver("--home", place.home.root, "console", "--instance", "none")
    assert done.returncode == 2
    assert "there is no instance 'none'" in one_line(done)


@pytest.mark.parametrize("missing", ["bcrypt", "starlette", "uvicorn"])
def test_without_its_extra_it_is_told_in_a_line_how_to_install_it(
    place: Place, missing: str
) -> None:
    script = f"import sys; sys.modules[{missing!r}] = None; from dataserver.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "--home", str(place.home.root), "console"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    line = one_line(done)
    assert f"the console needs {missing}" in line
    assert "pip install 'dataserver[console]'" in line


def test_two_consoles_show_one_home(console: Console) -> None:
    with shown(console.place) as other:
        assert other.url != console.url
        for each in (console, other, console):
            assert each.client.get("/agents").status_code == 200


# -- what every answer has -----------------------------------------------------


@pytest.mark.parametrize("path", [*ROUTES, OPEN])
def test_every_answer_tells_browsers_what_not_to_do_with_it(console: Console, path: str) -> None:
    answer = console.client.get(path)
    assert answer.status_code == ROUTES.get(path, 200)
    check_headers(answer)
    assert "server" not in answer.headers
    kept = path.startswith("/static/") and answer.status_code == 200
    assert answer.headers["cache-control"] == ("private, max-age=300" if kept else "no-store")
    if path.startswith("/api/") and answer.status_code >= 400:
        assert list(answer.json()) == ["error"]


def check_headers(answer: httpx.Response) -> None:
    assert answer.headers["content-security-policy"] == POLICY
    assert "'unsafe" not in POLICY
    assert "default-src 'none'" in POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", [*ROUTES, OPEN])
def test_the_head_of_an_answer_can_be_asked_for(console: Console, path: str) -> None:
    answer = console.client.head(path)
    assert answer.status_code == ROUTES.get(path, 200)
    assert answer.content == b""
    check_headers(answer)
    assert answer.headers["content-type"] == console.client.get(path).headers["content-type"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize(
    "path", ["/", "/agents", "/rejected/main/x", "/api/servers", "/metrics", "/static/console.css"]
)
def test_nothing_can_be_done_but_look(console: Console, method: str, path: str) -> None:
    answer = console.client.request(method, path, content=b"x")
    assert answer.status_code == 405
    assert set(answer.headers["allow"].replace(" ", "").split(",")) == {"GET", "HEAD"}
    check_headers(answer)


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
    assert programs.json() == {"error": "an error inside the console; its log has more"}
    assert figures.count('code="500"') == 2
    told = [each for each in caplog.records if each.name.startswith("dataserver")]
    assert [each.getMessage() for each in told] == [
        "/broken failed",
        "/api/broken failed",
        "/half broke off",
    ]
    assert all(each.exc_info for each in told)


# -- who may look --------------------------------------------------------------


PASSWORDS = {"ann": b"s3cret", "colon": b"a:b:c", "umlaut": "gr\u00fc\u00df \u2603".encode()}
PASSWORDS |= {"long": b"x" * 80}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """One whose home has users."""
    root = tmp_path_factory.mktemp("guarded") / "home"
    with opened(SQLITE, root) as database:
        database.prepare()
        place = Place(root, "sqlite:///var/dataserver.db")
        lines = [f"{name}:{hashed(password)}\n" for name, password in PASSWORDS.items()]
        (root / "console.users").write_text("".join(lines))
        (root / "console.users").chmod(0o640)
        with shown(place) as console:
            yield console


def basic(name: bytes, password: bytes) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(name + b":" + password).decode()}


@pytest.mark.parametrize("name", PASSWORDS)
def test_with_name_and_password_one_may_look(guarded: Console, name: str) -> None:
    login = basic(name.encode(), PASSWORDS[name])
    for path in ("/", "/api/servers", "/metrics", "/static/console.css"):
        assert guarded.client.get(path, headers=login).status_code == 200
    assert guarded.client.post("/", headers=login).status_code == 405


@pytest.mark.parametrize("path", [path for path in ROUTES if "?" not in path])
def test_without_a_login_nothing_is_shown_and_all_look_alike(guarded: Console, path: str) -> None:
    answer = guarded.client.get(path)
    assert answer.status_code == 401
    if path.startswith("/api/"):
        assert answer.json() == {"error": "log in"}
    else:
        assert answer.text == "log in\n"
    assert answer.headers["www-authenticate"].startswith("Basic realm=")
    assert answer.headers["cache-control"] == "no-store"
    check_headers(answer)


def test_anybody_may_know_that_it_is_well_but_no_more(guarded: Console) -> None:
    assert guarded.client.get(OPEN).text == "ok\n"
    for path in (f"{OPEN}/", f"{OPEN}/../", "//healthz", "/healthz%2f..%2fagents", "/x/../healthz"):
        assert guarded.raw(path)[0] in {401, 404}, path
    assert guarded.raw("/healthz?x=/agents") == (200, "ok\n")


@pytest.mark.parametrize(
    "header",
    [
        "Basic",
        "Basic !!!",
        "Basic YW5u",
        "Bearer s3cret",
        "ann:s3cret",
        "Basic \u00e4\u00f6\u00fc",
        "Basic " + "QUFB" * 5000,
        "Basic " + base64.b64encode(b"ann:wrong").decode(),
        "Basic " + base64.b64encode(b"ANN:s3cret").decode(),
        "Basic " + base64.b64encode(b"nobody:s3cret").decode(),
        "Basic " + base64.b64encode(b":").decode(),
        "Basic " + base64.b64encode(b"ann:").decode(),
        "Basic " + base64.b64encode(b"ann:s3cret\0").decode(),
        "Basic " + base64.b64encode(b"ann\0:s3cret").decode(),
        "Basic " + base64.b64encode(b"ann:" + b"x" * 10_000).decode(),
        "Basic " + base64.b64encode(b"ann:\xff\xfe").decode(),
    ],
)
def test_any_other_login_is_none(guarded: Console, header: str) -> None:
    answer = guarded.client.get("/", headers={"authorization": header.encode("latin-1")})
    assert answer.status_code == 401
    check_headers(answer)


def test_users_that_change_may_look_and_who_is_taken_out_may_not(guarded: Console) -> None:
    users = guarded.place.home.root / "console.users"
    before = users.read_text()

    def code(name: bytes) -> int:
        return guarded.client.get("/api/", headers=basic(name, b"pass")).status_code

    users.write_text(f"{before}bob:{hashed(b'pass')}\n")
    # The file is looked at once a second, and only ten wrong logins a minute are.
    wait_until(lambda: code(b"bob") == 200, "bob let in", look=0.4)
    log = guarded.place.home.root / "console.log"
    users.write_text("bob")
    wait_until(lambda: code(b"bob") and "line 1: is not NAME:HASH" in log.read_text(), "the error")
    assert code(b"bob") == 200
    users.write_text(before)
    wait_until(lambda: code(b"bob") == 401, "bob kept out")
    assert "pass" not in log.read_text()


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "10.0.0.1:8080", ""])
def test_a_name_that_is_none_of_this_machine_is_not_answered(console: Console, host: str) -> None:
    for path in ("/", "/healthz", "/api/servers"):
        status, text = console.raw(path, host=host)
        assert (status, "--host" in text) == (421, True)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1", "[::1]:8080"])
def test_the_names_of_this_machine_are_answered(console: Console, host: str) -> None:
    assert console.raw("/healthz", host=host)[0] == 200


def test_a_name_that_it_was_given_is_answered_and_no_other(place: Place) -> None:
    with shown(place, "--host", "Console.example") as console:
        assert console.raw("/", host="console.example")[0] == 200
        assert console.raw("/", host="console.example:443")[0] == 200
        assert console.raw("/", host="other.example")[0] == 421


def test_with_users_any_name_is_answered_to_those_who_log_in(guarded: Console) -> None:
    assert guarded.raw("/", host="any.example")[0] == 401
    assert guarded.raw("/healthz", host="any.example")[0] == 200


# -- odd requests --------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
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
    ],
)
def test_a_path_that_leads_nowhere_leads_nowhere(console: Console, path: str) -> None:
    status, text = console.raw(path)
    assert status == 404
    assert "root:" not in text
    assert "database =" not in text


@pytest.mark.parametrize("path", ["/agents/", "/modules/", "/api/agents/", "/static/", "/x"])
def test_a_path_or_query_without_end_is_refused(console: Console, path: str) -> None:
    assert console.raw(path + "9" * 5000)[0] == 414
    # As it comes in one piece or in several.
    assert console.raw(path + "9" * 60_000)[0] in {400, 414}
    assert console.raw("/agents?q=" + "9" * 5000)[0] == 400
    assert console.client.get("/").status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "page=0",
        "page=-1",
        "page=1.5",
        "page=1e3",
        "page=" + "9" * 25,
        "page=%D9%A1",
        "page=%00",
        "page=1000001",
        "page=%3Cscript%3E",
    ],
)
def test_an_odd_page_is_refused_with_what_is_allowed(console: Console, query: str) -> None:
    for path in ("/agents", "/rejected"):
        answer = console.client.get(f"{path}?{query}")
        assert answer.status_code == 400
        assert "page" in answer.text
        assert "<script>" not in answer.text
        said = console.client.get(f"/api{path}?{query}")
        assert (said.status_code, list(said.json())) == (400, ["error"])


def test_a_page_beyond_the_last_one_is_the_last_one(console: Console) -> None:
    for path in ("/api/agents", "/api/rejected"):
        found = console.client.get(f"{path}?page=99999").json()
        assert found["page"] == found["pages"]


@pytest.mark.parametrize(
    "query",
    [
        "from=now&to=-1h",
        "from=0&to=9999999999",
        "from=x",
        "to=%00",
        "from=" + "1" * 100,
        "from=2026-13-01",
        "width=0",
        "width=4001",
        "width=x",
    ],
)
def test_an_odd_span_or_width_is_refused(console: Console, query: str) -> None:
    answer = console.client.get(f"/api/modules/1/graph?{query}")
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


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


@pytest.mark.parametrize("name", HOSTILE)
def test_a_rejected_packet_is_shown_whatever_it_is_called_and_runs_nothing(
    console: Console, name: str
) -> None:
    content = name.encode("utf-8", "surrogateescape" if "\ud800" not in name else "surrogatepass")
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


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"size": Infinity}',
        b'{"size": 1e999, "reason": "malformed", "detail": "", "name": ""}',
    ],
)
def test_a_damaged_reason_hides_no_packet(console: Console, damage: bytes) -> None:
    rid = rejected(console.place, "whole.1.data", content=b"abc")
    (console.place.paths().rejected / f"{rid}.json").write_bytes(damage)
    assert "missing or damaged" in console.client.get("/rejected").text
    one = console.client.get(f"/api/rejected/main/{rid}").json()
    assert (one["content"], one["packet"]["size"]) == ("abc", 3)


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


# -- the database away ---------------------------------------------------------


def test_a_database_that_is_not_there_hides_nothing_of_this_machine_and_is_found_when_it_comes(
    tmp_path: Path,
) -> None:
    root = tmp_path / "home"
    place = Place(root, "sqlite:///var/dataserver.db")
    rid = rejected(place, "kept.1.data")
    with shown(place) as console:
        check_away(console, rid)
        assert "there is no database" in console.client.get("/agents").text
        with opened(SQLITE, root) as database:
            database.prepare()
        wait_until(lambda: console.client.get("/healthz").status_code == 200, "the database")
        assert console.client.get("/agents").status_code == 200


def test_a_server_that_hangs_keeps_nobody_waiting_for_long_and_is_found_again(
    mariadb_database: Database, tmp_path: Path
) -> None:
    mariadb_database.prepare()
    place = Place(tmp_path / "home", mariadb_database.url, database_timeout=1, connect_timeout=1)
    rid = rejected(place, "kept.1.data")
    with shown(place) as console:
        assert console.client.get("/agents").status_code == 200
        with mariadb_database.stop_cont():
            wait_until(lambda: console.client.get("/agents").status_code == 503, "a 503")
            check_away(console, rid)
        wait_until(lambda: console.client.get("/agents").status_code == 200, "the database")
        assert "not to be read" not in console.client.get("/").text


def test_it_ends_also_while_a_server_hangs(mariadb_database: Database, tmp_path: Path) -> None:
    mariadb_database.prepare()
    place = Place(tmp_path / "home", mariadb_database.url, database_timeout=1, connect_timeout=1)
    with mariadb_database.stop_cont(), shown(place) as console:
        assert console.client.get("/healthz").status_code == 503


def check_away(console: Console, rid: str) -> None:
    """What the console shows without its database."""
    for path in ("/agents", "/agents/1", "/modules/1", "/events", "/api/agents", "/api/events"):
        answer = console.client.get(path)
        assert answer.status_code == 503, path
        check_headers(answer)
        if path.startswith("/api/"):
            assert list(answer.json()) == ["error"]
        else:
            assert "Nothing is lost" in answer.text
    assert console.client.get("/healthz").status_code == 503
    page = console.client.get("/")
    assert page.status_code == 200
    assert "The database is not to be read" in page.text
    assert 'scope="row"><bdi>main</bdi>' in page.text
    assert console.client.get(f"/rejected/main/{rid}").status_code == 200
    assert console.client.get("/static/console.css").status_code == 200
    assert "dataserver_console_database_up 0\n" in console.client.get("/metrics").text
    found = json.loads(console.client.get("/api/servers").text)
    assert found["database_error"]
    assert [each["row"]["name"] for each in found["instances"]] == ["main"]
