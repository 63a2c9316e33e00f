"""Browsers that are too slow: their connections are closed, those of others are not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from dataserver.console import connection
from tests.support.server import PATIENCE

#: More than what lies in buffers between a server and who does not read.
_PIECE, _PIECES = b"x" * 65_536, 1_000
HEAD = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if Request(scope).url.path == "/long":
        answer = StreamingResponse(iter([_PIECE] * _PIECES))
    else:
        answer = PlainTextResponse("ok")
    await answer(scope, receive, send)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[uvicorn.Server]:
    """One whose connections have half a second."""
    monkeypatch.setattr(connection, "_ASKING", 0.5)
    monkeypatch.setattr(connection, "_TAKING", 0.5)
    monkeypatch.setattr(connection, "_TOO_MANY", 6)
    config = uvicorn.Config(
        application, http=connection.Connection, log_config=None, lifespan="off", ws="none"
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield server
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.fixture
def address(server: uvicorn.Server) -> tuple[str, int]:
    found: tuple[str, int] = server.servers[0].sockets[0].getsockname()
    return found


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=PATIENCE)


def is_answered(talk: socket.socket) -> bool:
    """Asks; whether all of the answer comes."""
    talk.sendall(HEAD % b"/")
    read = b""
    while not read.endswith(b"ok") and (piece := talk.recv(65_536)):
        read += piece
    return read.endswith(b"ok")


def ends(talk: socket.socket) -> bool:
    """Whether the server hangs up; waits for that."""
    try:
        while talk.recv(65_536):
            pass
    except ConnectionResetError:
        pass
    return True


def test_who_asks_nothing_is_hung_up_on(address: tuple[str, int]) -> None:
    with connect(address) as talk:
        assert ends(talk)


def test_who_asks_a_byte_at_a_time_is_hung_up_on(address: tuple[str, int]) -> None:
    with connect(address) as talk:
        talk.sendall(b"GET /")

        def is_cut_off() -> bool:
            time.sleep(0.05)
            try:
                talk.sendall(b"x")
            except OSError:
                return True
            return False

        wait_until(is_cut_off)


def test_who_has_an_answer_and_asks_half_of_the_next_is_hung_up_on(
    address: tuple[str, int],
) -> None:
    with connect(address) as talk:
        talk.sendall(HEAD % b"/" + b"GET / HT")
        assert ends(talk)


def test_who_does_not_take_the_answer_is_hung_up_on(
    server: uvicorn.Server, address: tuple[str, int]
) -> None:
    with connect(address) as talk:
        talk.sendall(HEAD % b"/long")
        assert talk.recv(12) == b"HTTP/1.1 200"
        wait_until(lambda: not server.server_state.connections)
        read = 0
        # What lay in buffers still comes.
        with contextlib.suppress(ConnectionResetError):
            while piece := talk.recv(1 << 20):
                read += len(piece)
        assert read < len(_PIECE) * _PIECES


def test_who_takes_it_slowly_gets_all_of_it(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_TAKING", 1.5)
    with connect(address) as talk:
        talk.sendall(HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") % b"/long")
        read, pauses = 0, 0
        while piece := talk.recv(1 << 20):
            read += len(piece)
            if read > pauses * 4_000_000:
                # In all longer than an answer may stand still.
                time.sleep(0.15)
                pauses += 1
        assert read > len(_PIECE) * _PIECES


def test_who_asks_again_and_again_is_answered_for_as_long_as_that(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_ASKING", 1.5)
    with connect(address) as talk:
        for _ in range(10):
            assert is_answered(talk)
            time.sleep(0.2)


def test_of_far_too_many_the_last_are_hung_up_on_at_once(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_ASKING", PATIENCE)
    talks = [connect(address) for _ in range(7)]
    assert ends(talks[-1])
    assert is_answered(talks[0])
    for talk in talks:
        talk.close()
