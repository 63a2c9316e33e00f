"""Consoles for tests: in this process with a clock of the test's own, or the command itself.

:func:`serving`, :func:`showing`   in a thread of this process, and a client of it
:func:`running_console`            `dataserver console` in a process of its own
:class:`Console`                   such a process with a client, and what its answers must have
:class:`Page`                      a page as a browser would take it apart
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import uvicorn

from dataserver.config.paths import Home
from dataserver.console.app import POLICY, create_app
from dataserver.console.source import Source
from dataserver.console.users import Users
from dataserver.errors import Reason
from dataserver.spool.rejected import RejectedPacket, new_id
from tests.support.commands import COMMAND
from tests.support.databases import Database
from tests.support.server import Place
from tests.support.waiting import PATIENCE, wait_until

#: Every page there is, and what is none: with the code of its answer where there are no agents.
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
#: Of this one anybody may ask.
OPEN = "/healthz"


@contextmanager
def serving(source: Source, users: Users | None = None) -> Iterator[httpx.Client]:
    """A console in a thread of this process, and a client of it."""
    config = uvicorn.Config(
        create_app(source, users),
        log_config=None,
        ws="none",
        lifespan="on",
        # A connection that the client is about to use again is not closed.
        timeout_keep_alive=int(PATIENCE),
    )
    server = uvicorn.Server(config)
    # With its protocol, as the command has it: else asyncio leaves delays of 40 ms in answers.
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            # Connections are taken from the start; they are answered when it is ready.
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
                yield client
        finally:
            wait_until(lambda: server.started, "the console", alive=thread.is_alive)
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


@contextmanager
def showing(database: Database, folder: Path, now: int) -> Iterator[httpx.Client]:
    """A console in this process, of a database and at a time; its home is made in ``folder``."""
    url = database.url
    if url.startswith("sqlite:///"):
        url = f"sqlite:///{database.home / url.removeprefix('sqlite:///')}"
    place = Place(folder / "console", url)
    with serving(Source(Home(place.home.root), {}, clock=lambda: now)) as client:
        yield client


@contextmanager
def console_process(home: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`dataserver console` on a free port; it dies with the test."""
    command = [str(COMMAND), "--home", str(home), "console", "--listen", "127.0.0.1:0", *options]
    with (
        (home / "console.log").open("ab") as errors,
        subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def address_of(process: subprocess.Popen[str], home: Path) -> str:
    """Where it says that it answers."""
    assert process.stdout is not None
    told: Sequence[str] = process.stdout.readline().split()
    assert told, f"it says nothing:\n{(home / 'console.log').read_text()[-2000:]}"
    return told[-1]


@contextmanager
def running_console(home: Path, *options: str) -> Iterator[str]:
    """`dataserver console` in a process of its own; where it answers."""
    with console_process(home, *options) as process:
        yield address_of(process, home)
        process.terminate()
        assert process.wait(PATIENCE) == 0


class Console(NamedTuple):
    """A console in a process of its own, and a client of it."""

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


@contextmanager
def shown(place: Place, *options: str) -> Iterator[Console]:
    """The console of a home."""
    with (
        running_console(place.home.root, *options) as url,
        httpx.Client(base_url=url, timeout=PATIENCE) as client,
    ):
        yield Console(url, client, place)


#: What every answer tells browsers not to do with it.
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def check_headers(answer: httpx.Response) -> None:
    """An answer has the headers that every one must have, and leaves nothing behind."""
    found = {name: answer.headers.get(name) for name in HEADERS}
    assert found == HEADERS, answer.url
    assert "set-cookie" not in answer.headers


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


class Page(HTMLParser):
    """A page as a browser would take it apart: its tags, texts and links."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        #: Where links lead, and what they say.
        self.links: list[tuple[str, str]] = []
        self._link: tuple[str, str] | None = None
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "a":
            self._link = (dict(attrs)["href"] or "", "")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._link is not None:
            self._link = (self._link[0], self._link[1] + data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._link is not None:
            self.links.append(self._link)
            self._link = None

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def names(self) -> set[str]:
        """Of its tags."""
        return {tag for tag, _ in self.tags}

    @property
    def scripts(self) -> list[str]:
        """Where its scripts come from; "" for one that stands in the page."""
        return [told.get("src") or "" for tag, told in self.tags if tag == "script"]

    def link(self, words: str) -> str | None:
        """Where the link of these words leads."""
        return next((href for href, said in self.links if said.strip() == words), None)

    def rows(self, kind: str) -> list[str]:
        """The links to single ones of a kind, "agents" or "modules", as often as they are there."""
        return [href for href, _ in self.links if href.startswith(f"/{kind}/")]
