"""Browsers that are too slow: their connections are closed, those of others are not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from dataserver.console import connection
from tests.support.waiting import PATIENCE, wait_until

#: Far more than what lies in buffers between a server and who does not read.
_PIECE, _PIECES = b"x" * 65_536, 100
_BUFFER = 65_536
HEAD = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
#: Seconds that a request may take to be asked, and an answer may stand still: far more than a test
#: takes, so that nothing but the test lets them pass.
ALLOWED = 100 * PATIENCE


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if Request(scope).url.path == "/long":
        answer = StreamingResponse(iter([_PIECE] * _PIECES))
    else:
        answer = PlainTextResponse("ok")
    await answer(scope, receive, send)


class _Loop(asyncio.SelectorEventLoop):
    """A loop whose clock the test can move on."""

    ahead = 0.0

    def time(self) -> float:
        return time.monotonic() + self.ahead


class _Watched(connection.Connection):
    """Counts what happened, for tests that wait for it."""

    received = pauses = resumes = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        _Watched.received += len(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        _Watched.pauses += 1

    def resume_writing(self) -> None:
        super().resume_writing()
        _Watched.resumes += 1


class Slow:
    """A server in a thread, and time that passes for it."""

    def __init__(self, listening: socket.socket) -> None:
        self.address: tuple[str, int] = listening.getsockname()
        self._listening = listening
        self._loop = _Loop()
        self.server = uvicorn.Server(
            uvicorn.Config(
                application,
                http=_Watched,
                log_config=None,
                lifespan="off",
                ws="none",
                # Its own bound must not come first.
                timeout_keep_alive=10 * int(ALLOWED),
            )
        )

    def run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self.server.serve([self._listening]))

    def advance(self, seconds: float) -> None:
        """Let time pass, and do what is due then."""
        passed = threading.Event()

        def move() -> None:
            self._loop.ahead += seconds
            # What became due is done before that.
            self._loop.call_later(0, self._loop.call_soon, passed.set)

        self._loop.call_soon_threadsafe(move)
        assert passed.wait(PATIENCE)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    monkeypatch.setattr(connection, "_ASKING", ALLOWED)
    monkeypatch.setattr(connection, "_TAKING", ALLOWED)
    monkeypatch.setattr(connection, "_TOO_MANY", 6)
    for counter in ("received", "pauses", "resumes"):
        monkeypatch.setattr(_Watched, counter, 0)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        slow = Slow(listening)
        thread = threading.Thread(target=slow.run)
        thread.start()
        try:
            wait_until(lambda: slow.server.started, "the server", alive=thread.is_alive)
            yield slow
        finally:
            slow.server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


def connect(slow: Slow) -> socket.socket:
    talk = socket.socket()
    talk.settimeout(PATIENCE)
    talk.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    talk.connect(slow.address)
    return talk


def is_answered(talk: socket.socket, also: bytes = b"") -> bool:
    """Asks; whether all of the answer comes."""
    talk.sendall(HEAD % b"/" + also)
    read = b""
    while not read.endswith(b"ok") and (piece := talk.recv(65_536)):
        read += piece
    return read.endswith(b"ok")


def send(talk: socket.socket, sent: bytes) -> None:
    """Send something, and wait until it has been read."""
    before = _Watched.received
    talk.sendall(sent)
    wait_until(lambda: _Watched.received >= before + len(sent), "what was sent")


def is_open(talk: socket.socket) -> bool:
    """Whether the server has not hung up yet; nothing may be there to be read."""
    talk.setblocking(False)
    try:
        return talk.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False
    finally:
        talk.settimeout(PATIENCE)


def ends(talk: socket.socket) -> bool:
    """Whether the server hangs up; waits for that."""
    try:
        while talk.recv(65_536):
            pass
    except ConnectionResetError:
        pass
    return True


def wait_accepted(slow: Slow, count: int) -> None:
    wait_until(lambda: len(slow.server.server_state.connections) == count, f"{count} connections")


def test_who_asks_nothing_is_hung_up_on(slow: Slow) -> None:
    with connect(slow) as talk:
        wait_accepted(slow, 1)
        slow.advance(0.9 * ALLOWED)
        assert is_open(talk)
        slow.advance(0.1 * ALLOWED)
        assert ends(talk)


def test_who_asks_a_byte_at_a_time_is_hung_up_on(slow: Slow) -> None:
    with connect(slow) as talk:
        send(talk, b"GET /")
        for _ in range(2):
            slow.advance(0.4 * ALLOWED)
            assert is_open(talk)
            send(talk, b"x")
        slow.advance(0.2 * ALLOWED)
        assert ends(talk)


def test_who_has_an_answer_and_asks_half_of_the_next_is_hung_up_on(slow: Slow) -> None:
    with connect(slow) as talk:
        assert is_answered(talk)
        send(talk, b"GET / HT")
        slow.advance(ALLOWED)
        assert ends(talk)


def test_who_sends_half_a_question_along_with_a_whole_one_is_hung_up_on(slow: Slow) -> None:
    with connect(slow) as talk:
        assert is_answered(talk, also=b"GET / HT")
        slow.advance(ALLOWED)
        assert ends(talk)


def test_who_does_not_take_the_answer_is_hung_up_on(slow: Slow) -> None:
    with connect(slow) as talk:
        talk.sendall(HEAD % b"/long")
        assert talk.recv(12) == b"HTTP/1.1 200"
        # It stands still where the last of its pauses lasts.
        wait_until(lambda: _Watched.pauses, "a pause")

        def is_given_up() -> bool:
            slow.advance(ALLOWED)
            return not slow.server.server_state.connections

        wait_until(is_given_up, "the end of the connection")
        read = 0
        # What lay in buffers still comes.
        with contextlib.suppress(ConnectionResetError):
            while piece := talk.recv(1 << 20):
                read += len(piece)
        assert read < len(_PIECE) * _PIECES


def test_who_takes_it_slowly_gets_all_of_it(slow: Slow) -> None:
    with connect(slow) as talk:
        talk.sendall(HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") % b"/long")
        read = waits = 0
        while stands_still(slow):
            # For less than it may, in all for longer.
            slow.advance(0.4 * ALLOWED)
            waits += 1
            while _Watched.resumes < _Watched.pauses and (piece := talk.recv(_BUFFER)):
                read += len(piece)
        while piece := talk.recv(_BUFFER):
            read += len(piece)
        assert read > len(_PIECE) * _PIECES
        assert waits > 5


def stands_still(slow: Slow) -> bool:
    """Wait until the server cannot write any more, or the connection has ended; which it is."""
    connections = slow.server.server_state.connections
    wait_until(lambda: _Watched.pauses > _Watched.resumes or not connections, "a pause or the end")
    return bool(connections)


def test_who_asks_again_and_again_is_answered_for_as_long_as_that(slow: Slow) -> None:
    with connect(slow) as talk:
        for _ in range(10):
            assert is_answered(talk)
            slow.advance(0.4 * ALLOWED)


def test_of_far_too_many_the_last_are_hung_up_on_at_once(slow: Slow) -> None:
    talks = [connect(slow) for _ in range(7)]
    assert ends(talks[-1])
    assert is_answered(talks[0])
    for talk in talks:
        talk.close()
