"""The databases that are measured: an SQLite file, and a private MariaDB that keeps each commit."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench import proc
from bench.database import connect
from bench.errors import BenchError
from dataserver.store import schema


class Store(Protocol):
    """Where databases are made for the measurements."""

    @property
    def name(self) -> str: ...

    def fresh(self, name: str) -> str:
        """The URL of an empty database."""

    def remove(self, name: str) -> None:
        """Delete it again."""

    def cpu(self) -> float | None:
        """Seconds of CPU the database's own process has used, None where it has none."""


class Sqlite:
    """A file for each database."""

    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fresh(self, name: str) -> str:
        return f"sqlite:///{(self._folder / name).absolute()}.db"

    def remove(self, name: str) -> None:
        for file in self._folder.glob(f"{name}.db*"):
            file.unlink()

    def cpu(self) -> None:
        return None


@contextlib.contextmanager
def sqlite(folder: Path) -> Iterator[Store]:
    """Databases in a folder."""
    yield Sqlite(folder)


@contextlib.contextmanager
def mariadb(folder: Path) -> Iterator[Store]:
    """A MariaDB server of our own, as Debian installs it, with a flush at every commit."""
    if shutil.which("mariadb-install-db") is None:
        raise BenchError("no MariaDB here; install Debian's mariadb-server, or use --stores sqlite")
    from tests.support.mariadb import MariaDB  # noqa: PLC0415 - needs the mysql extra

    class Maria:
        name = "mariadb"

        def fresh(self, name: str) -> str:
            url: str = server.create(name)
            return url

        def remove(self, name: str) -> None:
            server.drop(name)

        def cpu(self) -> float | None:
            return proc.cpu_seconds(server.pid)

    # The size of the log is MariaDB's own default; the class asks for a smaller one.
    with MariaDB(folder / "mariadb", "--innodb-log-file-size=96M") as server:
        yield Maria()


STORES = {"sqlite": sqlite, "mariadb": mariadb}


@dataclass(frozen=True, slots=True)
class Counts:
    """What a database holds: packets in the ledger, values in history."""

    packets: int
    stored: int

    def __sub__(self, other: Counts) -> Counts:
        return Counts(self.packets - other.packets, self.stored - other.stored)


def counts(url: str) -> Counts:
    """Count, with the bare driver, what the server says it stored."""
    with contextlib.closing(connect(url)) as connection:
        cursor = connection.cursor()

        def rows(table: str) -> int:
            cursor.execute(f"SELECT COUNT(*) FROM {table}")
            return int(cursor.fetchone()[0])

        history = (schema.number_history.name, schema.text_history.name)
        return Counts(rows(schema.packet.name), sum(map(rows, history)))
