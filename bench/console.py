"""The console: how long its pages take on much data, and what it costs a server that takes in W1.

``year`` and ``agents`` fill a database by bulk SQL, since only reading it is measured; ``load``
fills its own through the server, with packets (:mod:`bench.console_beside`).  Every figure is
taken from outside, by requests to the installed ``dataserver console``.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench import console_fill, generator
from bench.console_beside import WEEK, WIDTH, Beside, Size, deliver
from bench.console_fill import Filling
from bench.console_report import Loaded, Opened
from bench.console_server import Console
from bench.database import connect
from bench.errors import BenchError
from bench.generator import START
from bench.runs import files
from bench.server import Server
from bench.stores import STORES, Store
from bench.workloads import Kind, Workload

_ONE = Workload("one", "one packet of one agent", 1, (Kind.DATA,), 1)


class _Pandora:
    """Databases with the tables of Pandora FMS, empty but for its stock."""

    name = "pandora"

    def __init__(self, mariadb: Store) -> None:
        self._mariadb = mariadb
        self.remove = mariadb.remove
        self.cpu = mariadb.cpu

    def fresh(self, name: str) -> str:
        """The URL of a new one."""
        from tests.support import pandora  # noqa: PLC0415 - with the tests only

        url = self._mariadb.fresh(name)
        with contextlib.closing(connect(url)) as connection:
            cursor = connection.cursor()
            for statement in pandora.statements():
                cursor.execute(statement)
            connection.commit()
        return url


@contextlib.contextmanager
def opened(kind: str, folder: Path) -> Iterator[Store]:
    """Where databases of that kind are made."""
    if kind != _Pandora.name:
        with STORES[kind](folder) as store:
            yield store
        return
    with STORES["mariadb"](folder) as store:
        yield _Pandora(store)


class Bench:
    """Measures one kind of database in a folder to work in."""

    def __init__(
        self,
        command: Sequence[str],
        store: Store,
        folder: Path,
        say: Callable[[str], None],
        size: Size,
    ) -> None:
        self._command = command
        self._store = store
        self._folder = folder
        self._say = say
        self._size = size

    def measure(self, part: str) -> list[Opened | Loaded]:
        """One part: "year", "agents" or "load".

        Raises: BenchError where something was not answered, was answered wrong, or not stored.
        """
        folder = self._folder / f"console-{part}-{self._store.name}"
        folder.mkdir()
        url = self._store.fresh("bench_console")
        try:
            server = Server(self._command, folder / "home", url)
            server.once()
            if part == "load":
                consoles = [
                    self._console(folder, url, number) for number in range(self._size.consoles)
                ]
                return [
                    Beside(server, self._store, url, folder, self._say).measure(
                        self._size, consoles
                    )
                ]
            return list((self._year if part == "year" else self._agents)(server, folder, url))
        finally:
            self._store.remove("bench_console")
            shutil.rmtree(folder, ignore_errors=True)

    # -- one module, a long time ---------------------------------------------------------

    def _year(self, server: Server, folder: Path, url: str) -> Iterator[Opened]:
        points = self._size.points
        self._say(f"a year on {self._store.name}: filling")
        generator.write(_ONE, folder / "corpus")
        deliver(server, files(folder / "corpus", [0]))
        server.once()
        with _filling(url, folder) as filling:
            module = filling.history(points)
        first = START - points * console_fill.MINUTE
        path = f"/api/modules/{module}/graph?from={first - 1}&to={START}&width={WIDTH}"
        with self._console(folder, url) as console:
            self._say(f"a year on {self._store.name}: asking")
            changes = console.json(path)["changes"]
            _agree("points in the graph", changes, points)
            yield self._opened(console, "year", "module's graph, a year", path)
            path = f"/api/modules/{module}/graph?from={START - WEEK}&to={START}&width={WIDTH}"
            yield self._opened(console, "year", "module's graph, a week", path)

    # -- many agents ---------------------------------------------------------------------

    def _agents(self, _: Server, folder: Path, url: str) -> Iterator[Opened]:
        count = self._size.agents
        self._say(f"{count:,} agents on {self._store.name}: filling")
        with _filling(url, folder) as filling:
            filling.agents(count)
        numbers = range(1, count + 1)
        critical = sum(console_fill.worst(number) == 1 for number in numbers)
        word = "host-0012"
        found = sum(word in console_fill.name(number) for number in numbers)
        last = -(-count // 100)
        asked = {
            "agents": ("", count),
            "agents, the last page": (f"?page={last}", count),
            "agents, a search": (f"?q={word}", found),
            "agents, critical ones": ("?status=critical", critical),
            "agents, the gravest first": ("?sort=status", count),
        }
        with self._console(folder, url) as console:
            for what, (query, total) in asked.items():
                self._say(f"{what} on {self._store.name}: asking")
                _agree(what, console.json(f"/api/agents{query}")["total"], total)
                yield self._opened(console, "agents", what, f"/agents{query}")

    def _opened(self, console: Console, part: str, what: str, path: str) -> Opened:
        seconds, body = console.times(path, self._size.runs)
        return Opened(part, what, self._store.name, tuple(seconds), len(body))

    def _console(self, folder: Path, url: str, number: int = 0) -> Console:
        return Console(self._command, folder / "home", url, number)


def _agree(what: str, found: int, expected: int) -> None:
    """A figure counts only when the answer is right."""
    if found != expected:
        raise BenchError(f"{what}: {found:,} instead of {expected:,}")


@contextlib.contextmanager
def _filling(url: str, folder: Path) -> Iterator[Filling]:
    filling = Filling(url, folder)
    try:
        yield filling
    finally:
        filling.close()
