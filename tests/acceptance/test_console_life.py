"""`dataserver console` as a user starts it: its life, who may look, a database that is away."""

from __future__ import annotations

import base64
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import bcrypt
import httpx
import pytest

from dataserver.console import source as source_module
from dataserver.console.source import Source
from dataserver.console.users import Users
from tests.support.clock import Clock
from tests.support.commands import Run
from tests.support.consoles import (
    OPEN,
    ROUTES,
    Console,
    address_of,
    check_headers,
    console_process,
    rejected,
    serving,
    shown,
)
from tests.support.databases import SQLITE, Database, opened
from tests.support.failures import failures
from tests.support.server import Place
from tests.support.waiting import PATIENCE, wait_until


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A home with a database, an agent-less one."""
    root = tmp_path_factory.mktemp("life") / "home"
    with opened(SQLITE, root) as database:
        yield Place(root, database.url)


@pytest.fixture(scope="module")
def console(place: Place) -> Iterator[Console]:
    """One without users, for all tests that only ask."""
    with shown(place) as console:
        yield console


@pytest.fixture(scope="module")
def named(place: Place) -> Iterator[Console]:
    """Another of the same home, which was given a name."""
    with shown(place, "--host", "Console.example") as console:
        yield console


# -- its life ------------------------------------------------------------------


@pytest.fixture
def process(sqlite_database: Database) -> Iterator[subprocess.Popen[str]]:
    """One whose messages go to the file ``console.log`` of a home of its own."""
    place = Place(sqlite_database.home, sqlite_database.url)
    with console_process(place.home.root) as process:
        yield process


def log_of(database: Database) -> str:
    return (database.home / "console.log").read_text()


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_it_says_where_it_answers_and_ends_in_good_order_when_asked_to(
    process: subprocess.Popen[str], sqlite_database: Database, number: signal.Signals
) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("console: http://127.0.0.1:")
    assert httpx.get(f"{line.split()[1]}healthz", timeout=PATIENCE).text == "ok\n"
    process.send_signal(number)
    out, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, log_of(sqlite_database)) == (0, "", "")


def test_it_ends_while_others_keep_their_connections_and_say_nothing(
    process: subprocess.Popen[str], sqlite_database: Database
) -> None:
    found = urlsplit(address_of(process, sqlite_database.home))
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


#: Addresses that will not do, and why.
REFUSED = {
    "127.0.0.1": "not HOST:PORT",
    "": "not HOST:PORT",
    "127.0.0.1:": "not HOST:PORT",
    "127.0.0.1:http": "not HOST:PORT",
    "127.0.0.1:65536": "not HOST:PORT",
    "127.0.0.1:-1": "not HOST:PORT",
    "127.0.0.1:" + "9" * 5000: "not HOST:PORT",
    "::1:8080": "not HOST:PORT",
    "nowhere.invalid:8080": "not an address of this machine",
    "x" * 80 + ":8080": "not an address of this machine",
    "a..b:8080": "not an address of this machine",
    "0.0.0.0:0": "a login is required",
    "[::]:0": "a login is required",
    ":0": "a login is required",
}


def test_an_address_that_will_not_do_is_told_in_a_line(dataserver: Run, place: Place) -> None:
    def check(listen: str) -> None:
        done = dataserver("--home", place.home.root, "console", "--listen", listen)
        assert done.returncode == 2
        assert REFUSED[listen] in one_line(done)

    assert failures(check, REFUSED) == {}


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


@pytest.mark.parametrize(
    "missing",
    ["uvicorn", *(pytest.param(it, marks=pytest.mark.long) for it in ("bcrypt", "starlette"))],
)
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
    assert "-m pip install --editable " in line


def test_two_consoles_show_one_home(console: Console, named: Console) -> None:
    assert named.url != console.url
    for each in (console, named, console):
        assert each.client.get("/agents").status_code == 200


# -- who may look --------------------------------------------------------------

PASSWORDS = {"ann": b"s3cret", "colon": b"a:b:c", "umlaut": "gr\u00fc\u00df \u2603".encode()}
PASSWORDS |= {"long": b"x" * 80}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """One whose home has users."""
    root = tmp_path_factory.mktemp("guarded") / "home"
    with opened(SQLITE, root) as database:
        place = Place(root, database.url)
        write_users(root / "console.users")
        with shown(place) as console:
            yield console


def write_users(path: Path, *more: str) -> None:
    lines = [f"{name}:{hashed(password)}\n" for name, password in PASSWORDS.items()]
    path.write_text("".join([*lines, *more]))
    path.chmod(0o640)


def hashed(password: bytes) -> str:
    return bcrypt.hashpw(password[:72], bcrypt.gensalt(4)).decode()


def basic(name: bytes, password: bytes) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(name + b":" + password).decode()}


def test_with_name_and_password_one_may_look(guarded: Console) -> None:
    def check(name: str) -> None:
        login = basic(name.encode(), PASSWORDS[name])
        for path in ("/", "/api/servers", "/metrics", "/static/console.css"):
            assert guarded.client.get(path, headers=login).status_code == 200
        assert guarded.client.post("/", headers=login).status_code == 405

    assert failures(check, PASSWORDS) == {}


def test_without_a_login_nothing_is_shown_and_all_look_alike(guarded: Console) -> None:
    def check(path: str) -> None:
        answer = guarded.client.get(path)
        assert answer.status_code == 401
        if path.startswith("/api/"):
            assert answer.json() == {"error": "log in"}
        else:
            assert answer.text == "log in\n"
        assert answer.headers["www-authenticate"].startswith("Basic realm=")
        assert answer.headers["cache-control"] == "no-store"
        check_headers(answer)

    assert failures(check, [path for path in ROUTES if "?" not in path]) == {}


def test_anybody_may_know_that_it_is_well_but_no_more(guarded: Console) -> None:
    assert guarded.client.get(OPEN).text == "ok\n"
    for path in (f"{OPEN}/", f"{OPEN}/../", "//healthz", "/healthz%2f..%2fagents", "/x/../healthz"):
        assert guarded.raw(path)[0] in {401, 404}, path
    assert guarded.raw("/healthz?x=/agents") == (200, "ok\n")


#: Logins that are none; with each user's name fewer wrong ones than are looked at in a minute.
WRONG_LOGINS = (
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
)


def test_any_other_login_is_none(guarded: Console) -> None:
    def check(header: str) -> None:
        answer = guarded.client.get("/", headers={"authorization": header.encode("latin-1")})
        assert answer.status_code == 401
        check_headers(answer)

    assert failures(check, WRONG_LOGINS) == {}


def test_users_that_change_may_look_and_who_is_taken_out_may_not(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, users = Clock(), tmp_path / "users"
    write_users(users)
    with serving(Source(place.home, {}), Users(users, clock)) as client:

        def code() -> int:
            # Once a second the file is looked at.
            clock.advance(1)
            return client.get("/api/", headers=basic(b"bob", b"pass")).status_code

        assert code() == 401
        write_users(users, f"bob:{hashed(b'pass')}\n")
        assert code() == 200
        users.write_text("bob")
        assert code() == 200
        assert "line 1: is not NAME:HASH" in caplog.text
        write_users(users)
        assert code() == 401
    assert "pass" not in caplog.text


def test_only_the_names_of_this_machine_are_answered(console: Console) -> None:
    def check(host: str) -> None:
        for path in ("/", "/healthz", "/api/servers"):
            status, text = console.raw(path, host=host)
            assert (status, "--host" in text) == (421, True)

    others = ("evil.example", "localhost.evil.example", "10.0.0.1:8080", "")
    ours = ("localhost", "LOCALHOST:1234", "127.0.0.1", "[::1]:8080")
    assert failures(check, others) == {}
    assert {host: console.raw("/healthz", host=host)[0] for host in ours} == dict.fromkeys(
        ours, 200
    )


def test_a_name_that_it_was_given_is_answered_and_no_other(named: Console) -> None:
    assert named.raw("/", host="console.example")[0] == 200
    assert named.raw("/", host="console.example:443")[0] == 200
    assert named.raw("/", host="other.example")[0] == 421


def test_with_users_any_name_is_answered_to_those_who_log_in(guarded: Console) -> None:
    assert guarded.raw("/", host="any.example")[0] == 401
    assert guarded.raw("/healthz", host="any.example")[0] == 200


# -- the database away ---------------------------------------------------------


def test_a_database_that_is_not_there_hides_nothing_of_this_machine_and_is_found_when_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "home"
    place = Place(root, "sqlite:///var/dataserver.db")
    rid = rejected(place, "kept.1.data")
    with serving(Source(place.home, {})) as client:
        check_away(client, rid)
        assert "there is no database" in client.get("/agents").text
        with opened(SQLITE, root):
            # As after a while, in which nobody tries.
            monkeypatch.setattr(source_module, "_AWAY", 0.0)
            assert client.get("/healthz").status_code == 200
            assert client.get("/agents").status_code == 200


@pytest.fixture
def impatient(mariadb_database: Database, tmp_path: Path) -> Place:
    """A home that waits for its database server, which may hang, as short a time as can be."""
    return Place(tmp_path / "home", mariadb_database.url, database_timeout=1, connect_timeout=1)


def test_a_server_that_hangs_keeps_nobody_waiting_for_long_and_is_found_again(
    impatient: Place, mariadb_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    rid = rejected(impatient, "kept.1.data")
    with serving(Source(impatient.home, {})) as client:

        def becomes(code: int) -> None:
            # On a busy machine a server that is well may take longer than it is waited for.
            wait_until(lambda: client.get("/agents").status_code == code, f"code {code}")

        becomes(200)
        with mariadb_database.stop_cont():
            becomes(503)
            # Once it is known nobody else tries, for a while; here: for as long as it hangs.
            monkeypatch.setattr(source_module, "_AWAY", PATIENCE)
            check_away(client, rid)
        monkeypatch.setattr(source_module, "_AWAY", 0.0)
        becomes(200)
        wait_until(lambda: "cannot be read" not in client.get("/").text, "the page of servers")


def test_it_ends_also_while_a_server_hangs(impatient: Place, mariadb_database: Database) -> None:
    with mariadb_database.stop_cont(), shown(impatient) as console:
        assert console.client.get("/healthz").status_code == 503


def check_away(client: httpx.Client, rid: str) -> None:
    """What the console shows without its database."""
    for path in ("/agents", "/agents/1", "/modules/1", "/events", "/api/agents", "/api/events"):
        answer = client.get(path)
        assert answer.status_code == 503, path
        check_headers(answer)
        if path.startswith("/api/"):
            assert list(answer.json()) == ["error"]
        else:
            assert "Nothing is lost" in answer.text
    assert client.get("/healthz").status_code == 503
    page = client.get("/")
    assert page.status_code == 200
    assert "The database cannot be read" in page.text
    assert 'scope="row"><bdi>main</bdi>' in page.text
    assert client.get(f"/rejected/main/{rid}").status_code == 200
    assert client.get("/static/console.css").status_code == 200
    assert "dataserver_console_database_up 0\n" in client.get("/metrics").text
    found = json.loads(client.get("/api/servers").text)
    assert found["database_error"]
    assert [each["row"]["name"] for each in found["instances"]] == ["main"]
