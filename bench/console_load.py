"""Requests at a steady rate, whether earlier ones were answered or not, and how long each took.

Each has its time; what it took counts from then, so that a console that cannot keep up shows it
(a client that waits for one answer before it asks again would hide it).
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from math import ceil
from random import Random
from typing import NamedTuple

#: What people look at, in twenty requests: so many of each kind.
MIX = {"servers": 4, "agents": 5, "agent": 4, "graph": 4, "events": 3}
#: Requests that wait for their answers at once.
THREADS = 32
#: Seconds after which an answer is not waited for any more.
PATIENCE = 30.0
#: A connection that was not used for so long is made anew: its console may just be closing it.
_IDLE = 4.0
#: However long it is asked for, no more requests than this are sent.
MOST = 20_000
#: What a request without an answer has for a code.
NO_ANSWER = 0


class Ask(NamedTuple):
    """A request: seconds after the start, which console, of what kind, and where."""

    due: float
    console: int
    kind: str
    path: str


class Answer(NamedTuple):
    """``due`` by the monotonic clock, ``seconds`` from then to the last byte of the answer."""

    kind: str
    due: float
    seconds: float
    code: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds."""

    p50: float
    p95: float
    p99: float


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that no less than ``percent`` of them do not exceed; of none: nan."""
    if not values:
        return float("nan")
    return sorted(values)[max(0, ceil(len(values) * percent / 100) - 1)]


def latency(answers: Iterable[Answer]) -> Latency:
    """Of those that were answered."""
    seconds = [answer.seconds for answer in answers if answer.code != NO_ANSWER]
    return Latency(*(percentile(seconds, percent) for percent in (50, 95, 99)))


def plan(
    rate: float, consoles: int, pages: Callable[[str, Random], str], seed: int = 1
) -> Iterator[Ask]:
    """Requests for ever: ``rate`` a second in all, the consoles in turns, the kinds as in MIX.

    ``pages`` gives a path of a kind.
    """
    random = Random(seed)
    kinds = [kind for kind, count in MIX.items() for _ in range(count)]
    number = 0
    while True:
        random.shuffle(kinds)
        for kind in kinds:
            yield Ask(number / rate, number % consoles, kind, pages(kind, random))
            number += 1


class Load:
    """Sends a plan in the background, from entering the block to leaving it."""

    def __init__(self, asks: Iterator[Ask], ports: Sequence[int]) -> None:
        self._asks = islice(asks, MOST)
        self._ports = ports
        self._stop = threading.Event()
        self._answers: list[Answer] = []
        self._connections = threading.local()
        self._all: list[http.client.HTTPConnection] = []
        self._sender = threading.Thread(target=self._send, name="load")

    def __enter__(self) -> Load:
        self._sender.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._sender.join()
        for connection in self._all:
            connection.close()

    def answers(self, since: float, until: float) -> list[Answer]:
        """The answers to what was due in this time (by the monotonic clock), and all bad ones.

        To be asked for after the block.
        """
        return [
            answer
            for answer in self._answers
            if since <= answer.due < until or answer.code != http.HTTPStatus.OK
        ]

    def _send(self) -> None:
        start = time.monotonic()
        with ThreadPoolExecutor(THREADS) as pool:
            for ask in self._asks:
                if self._stop.wait(max(0.0, start + ask.due - time.monotonic())):
                    return
                pool.submit(self._ask, ask, start + ask.due)

    def _ask(self, ask: Ask, due: float) -> None:
        try:
            code = self._code(ask)
        except (OSError, http.client.HTTPException):
            code = NO_ANSWER
            self._open().pop(ask.console, None)
        # Appending is one step for all threads.
        self._answers.append(Answer(ask.kind, due, time.monotonic() - due, code))

    def _code(self, ask: Ask) -> int:
        opened = self._open()
        connection, used = opened.get(ask.console, (None, 0.0))
        if connection is None or time.monotonic() - used > _IDLE:
            if connection is not None:
                connection.close()
            port = self._ports[ask.console]
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            self._all.append(connection)
        connection.request("GET", ask.path)
        response = connection.getresponse()
        response.read()
        opened[ask.console] = (connection, time.monotonic())
        return response.status

    def _open(self) -> dict[int, tuple[http.client.HTTPConnection, float]]:
        """This thread's connections, and when each was used last."""
        found: dict[int, tuple[http.client.HTTPConnection, float]] | None
        found = getattr(self._connections, "opened", None)
        if found is None:
            found = self._connections.opened = {}
        return found
