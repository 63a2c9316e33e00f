"""Who may look at the console: logins over HTTP, guesses, and names under which it answers."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import bcrypt
import httpx
import pytest
from starlette.responses import PlainTextResponse

from dataserver.console import access as module
from dataserver.console import users as users_module
from dataserver.console.access import Access, Failures, host_name
from dataserver.console.users import Users
from tests.support.clock import Clock
from tests.support.failures import failures
from tests.support.waiting import PATIENCE

NAME, PASSWORD = "ann", "pass:wörd"
INSIDE = "inside"
#: Paths that only those who log in may ask for.
OUTSIDE = ("/", "/static/console.css", "/metrics", "/api/", "/healthz/", "/Healthz")


@pytest.fixture
def users(tmp_path: Path) -> Users:
    path = tmp_path / "console.users"
    lines = (
        name + b":" + bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)) + b"\n"
        for name in (NAME.encode(), b"bob")
    )
    path.write_bytes(b"".join(lines))
    path.chmod(0o600)
    return Users(path)


def basic(name: str = NAME, password: str = PASSWORD) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def asked(
    app: Access, ask: Callable[[httpx.AsyncClient], Awaitable[None]], host: str = "localhost"
) -> None:
    """What ``ask`` asks of the console, which is at ``host``."""

    async def run() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            await ask(client)

    asyncio.run(asyncio.wait_for(run(), PATIENCE))


def console(users: Users | None, *hosts: str) -> Access:
    return Access(PlainTextResponse(INSIDE), users, frozenset(hosts))


class TestLogins:
    def test_whoever_is_not_known_is_asked_to_log_in(self, users: Users) -> None:
        def check(header: str | None) -> None:
            async def ask(client: httpx.AsyncClient) -> None:
                headers = {} if header is None else {"authorization": header}
                for path in OUTSIDE:
                    answer = await client.get(path, headers=headers)
                    assert answer.status_code == 401, path
                    challenge = 'Basic realm="dataserver", charset="UTF-8"'
                    assert answer.headers["www-authenticate"] == challenge
                    assert INSIDE not in answer.text

            asked(console(users), ask)

        headers = [
            None,
            "",
            "Basic",
            "Basic ",
            "Basic !!!",
            "Basic YW5u",
            "Bearer " + base64.b64encode(b"ann:x").decode(),
            "Basic " + base64.b64encode(b"ann:wrong").decode(),
            "Basic " + base64.b64encode(b"eve:wrong").decode(),
            "Basic " + base64.b64encode(b"ann:" + b"x" * 5000).decode(),
            "Basic " + base64.b64encode(b"\xff\0:\xff").decode(),
            "Basic " + "A" * 10_001,
        ]
        assert failures(check, headers) == {}

    def test_bytes_that_are_no_text_are_a_wrong_login(self, users: Users) -> None:
        async def ask(client: httpx.AsyncClient) -> None:
            answer = await client.get("/", headers=[(b"authorization", b"Basic \xff\xfe")])
            assert answer.status_code == 401

        asked(console(users), ask)

    def test_whoever_is_known_gets_in(self, users: Users) -> None:
        async def ask(client: httpx.AsyncClient) -> None:
            coded = basic()["authorization"].partition(" ")[2]
            for scheme in ("Basic", "Basic", "basic", "BASIC"):
                answer = await client.get("/", headers={"authorization": f"{scheme} {coded}"})
                assert (answer.status_code, answer.text) == (200, INSIDE), scheme

        asked(console(users), ask)

    def test_everybody_may_know_whether_it_is_well(self, users: Users) -> None:
        async def ask(client: httpx.AsyncClient) -> None:
            assert (await client.get("/healthz")).text == INSIDE

        asked(console(users), ask)


class TestGuesses:
    def test_after_some_wrong_ones_the_next_are_not_looked_at(
        self, users: Users, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compared: list[bytes] = []
        compare = bcrypt.checkpw

        def checkpw(password: bytes, hashed: bytes) -> bool:
            compared.append(password)
            return compare(password, hashed)

        monkeypatch.setattr(users_module.bcrypt, "checkpw", checkpw)

        async def ask(client: httpx.AsyncClient) -> None:
            # Ann is in, and so stays.
            assert (await client.get("/", headers=basic())).status_code == 200
            codes = [
                (await client.get("/", headers=basic(password=f"guess {each}"))).status_code
                for each in range(15)
            ]
            assert codes == [401] * 10 + [429] * 5
            assert len(compared) == 11
            clock.advance(20)
            refused = await client.get("/", headers=basic(password="guess"))
            assert int(refused.headers["retry-after"]) == 40
            assert (await client.get("/", headers=basic())).status_code == 200
            # Who guesses at her keeps nobody else out.
            assert (await client.get("/", headers=basic("bob"))).status_code == 200
            clock.advance(40)
            guess = await client.get("/", headers=basic(password="guess"))
            assert guess.status_code == 401

        clock = Clock()
        monkeypatch.setattr(module, "Failures", lambda: Failures(clock))
        asked(console(users), ask)

    def test_many_at_once_keep_nobody_out_who_is_known(
        self, users: Users, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        may_go_on = threading.Event()
        at_once: list[int] = []
        lock = threading.Lock()
        running = 0

        def checkpw(password: bytes, hashed: bytes) -> bool:
            nonlocal running
            with lock:
                running += 1
                at_once.append(running)
            assert may_go_on.wait(PATIENCE)
            with lock:
                running -= 1
            return False

        async def ask(client: httpx.AsyncClient) -> None:
            assert (await client.get("/", headers=basic())).status_code == 200
            monkeypatch.setattr(users_module.bcrypt, "checkpw", checkpw)
            guesses = [
                asyncio.ensure_future(client.get("/", headers=basic(f"eve{each}", "x")))
                for each in range(100)
            ]
            while len(at_once) < 2 or sum(each.done() for each in guesses) < 68:
                await asyncio.sleep(0.001)
            # All threads that compare are busy, as many wait, and the rest were sent away.
            assert (await client.get("/", headers=basic())).status_code == 200
            # The threads that make pages are free.
            found = await asyncio.gather(*(asyncio.to_thread(int, "1") for _ in range(3)))
            assert found == [1, 1, 1]
            may_go_on.set()
            codes = [(await each).status_code for each in guesses]
            assert sorted(codes) == [401] * 32 + [503] * 68
            assert max(at_once) == 2

        asked(console(users), ask)


class TestFailures:
    def test_the_next_guess_is_taken_a_minute_after_the_first(self) -> None:
        clock = Clock(0.0)
        guesses = Failures(clock)
        for each in range(10):
            assert guesses.pause("a", b"ann") == 0
            clock.now = each * 2.0
            guesses.add("a", b"ann")
        assert guesses.pause("a", b"ann") == 42
        assert guesses.pause("b", b"ann") == 0
        assert guesses.pause("a", b"bob") == 0
        clock.now = 60.5
        assert guesses.pause("a", b"ann") == 0
        guesses.add("a", b"ann")
        assert guesses.pause("a", b"ann") == 0

    def test_they_take_little_memory_whoever_guesses(self) -> None:
        guesses = Failures(Clock(0.0))
        for each in range(10_100):
            guesses.add("a", b"%d" % each + b"x" * 5000)
        assert len(guesses._counts) == 10_000
        assert max(len(name) for _, name in guesses._counts) <= 256


class TestNames:
    def test_those_of_this_machine_are_answered(self) -> None:
        names = ("localhost", "LocalHost", "localhost:8080", "127.0.0.1", "127.0.0.1:1")

        async def ask(client: httpx.AsyncClient) -> None:
            for host in (*names, "[::1]:8080"):
                answer = await client.get("/", headers={"host": host})
                assert answer.status_code == 200, host

        asked(console(None, "localhost", "127.0.0.1", "::1"), ask)

    def test_others_are_not_so_that_a_page_elsewhere_can_read_nothing(self) -> None:
        def check(host: str) -> None:
            async def ask(client: httpx.AsyncClient) -> None:
                for path in ("/", "/healthz", "/static/x"):
                    answer = await client.get(path, headers={"host": host})
                    assert answer.status_code == 421, path
                    assert INSIDE not in answer.text

            asked(console(None, "localhost", "127.0.0.1", "::1"), ask)

        others = [
            "example.org",
            "example.org:8080",
            "localhost.example.org",
            "example.org:localhost",
            "localhost@example.org",
            "localhost:8080:8080",
            "127.0.0.1.nip.io",
            "[::1",
            "[::1].example.org",
            "",
        ]
        assert failures(check, others) == {}

    def test_a_request_without_one_is_not_answered(self) -> None:
        async def run() -> None:
            sent: list[int] = []

            async def send(message: dict[str, int]) -> None:
                sent.append(message.get("status", 0))

            scope = {"type": "http", "path": "/", "method": "GET", "headers": [], "client": None}
            await console(None, "localhost")(scope, None, send)  # type: ignore[arg-type]
            assert sent[0] == 421

        asyncio.run(run())

    @pytest.mark.parametrize(
        ("host", "name"),
        [("a:1", "a"), ("A", "a"), ("[::1]:8", "::1"), ("[::1]", "::1"), ("", ""), (":8", "")],
    )
    def test_a_name_is_what_stands_before_the_port(self, host: str, name: str) -> None:
        assert host_name(host) == name


def test_a_path_that_is_too_long_for_any_page_is_refused(users: Users) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        for path in ("/agents/" + "9" * 5000, "/" + "x" * 1000, "/%41" * 300 + "/%00" * 300):
            assert (await client.get(path)).status_code == 414
        assert (await client.get("/" + "x" * 999)).status_code == 401

    asked(console(users), ask)


def test_the_limits_that_these_tests_count_on() -> None:
    assert (module._AT_ONCE, module._WAITING) == (2, 32)
