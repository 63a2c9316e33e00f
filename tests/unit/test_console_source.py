"""What the console reads: looked at anew when something changed, and never waited for by many."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from dataserver.config.paths import Home
from dataserver.config.settings import Settings
from dataserver.console import source as source_module
from dataserver.console.source import Source
from dataserver.errors import (
    ConfigError,
    DataserverError,
    SchemaError,
    StoreConflict,
    StoreUnavailable,
)
from dataserver.store.errors import translating
from dataserver.store.layout import reading
from dataserver.store.opening import ReadingStore
from tests.support.databases import SQLITE, Database, opened
from tests.support.server import Place
from tests.support.waiting import PATIENCE, wait_until


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """One that is not there yet."""
    with opened(SQLITE, tmp_path / "home", bare=True) as found:
        yield found


@pytest.fixture
def place(database: Database) -> Place:
    return Place(database.home, database.url)


@pytest.fixture
def source(place: Place, database: Database) -> Iterator[Source]:
    """Of a database that is there."""
    database.prepare()
    source = Source(Home(place.home.root), {})
    yield source
    source.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found is looked at anew each time."""
    monkeypatch.setattr(source_module, "_OLD", 0.0)
    monkeypatch.setattr(source_module, "_AWAY", 0.0)


def asks(source: Source) -> int:
    """Ask the database something, as a page does."""
    store = source.store()
    with source.watched(), translating("ask"), reading(store.engine) as conn:
        return int(conn.execute(text("SELECT 1")).scalar_one())


def test_the_database_is_opened_once_for_many_pages(source: Source) -> None:
    assert asks(source) == 1
    assert source.store() is source.store()


def test_the_database_is_only_read(source: Source) -> None:
    with reading(source.store().engine) as conn, pytest.raises(Exception, match="readonly"):
        conn.execute(text("DELETE FROM tagente"))


def test_a_database_that_is_not_there_is_told_and_found_once_it_is(
    place: Place, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "_AWAY", 0.0)
    source = Source(Home(place.home.root), {})
    with pytest.raises(StoreUnavailable, match="there is no database"):
        source.store()
    database.prepare()
    assert asks(source) == 1


def test_an_empty_database_is_told_as_one_that_cannot_be_read(
    place: Place, database: Database
) -> None:
    with database.engine().connect():
        pass
    with pytest.raises(SchemaError, match="has no tables yet"):
        Source(Home(place.home.root), {}).store()


def test_a_file_that_goes_is_noticed_by_whoever_reads_and_its_successor_by_the_next(
    source: Source, database: Database, tmp_path: Path
) -> None:
    asks(source)
    file = database.home / "var" / "dataserver.db"
    for suffix in ("", "-wal", "-shm"):
        if (moved := file.with_name(file.name + suffix)).exists():
            moved.rename(tmp_path / moved.name)
    with pytest.raises(StoreUnavailable):
        asks(source)
    with pytest.raises(StoreUnavailable, match="there is no database"):
        asks(source)
    source._failure = None  # as after a while
    for moved in tmp_path.glob("dataserver.db*"):
        moved.rename(file.parent / moved.name)
    assert asks(source) == 1


@pytest.mark.usefixtures("impatient")
def test_settings_that_change_are_read(source: Source, place: Place) -> None:
    assert str(source.store().zone) == "UTC"
    place.configure(timezone="Europe/Madrid")
    assert str(source.store().zone) == "Europe/Madrid"
    assert str(source.zone) == "Europe/Madrid"


@pytest.mark.usefixtures("impatient")
def test_settings_that_break_are_told_until_they_are_mended(source: Source, place: Place) -> None:
    asks(source)
    place.home.config.write_text("database = [")
    with pytest.raises(ConfigError, match="TOML"):
        asks(source)
    place.configure()
    assert asks(source) == 1


@pytest.mark.usefixtures("impatient")
def test_an_instance_that_goes_is_no_mistake_of_whoever_looks(source: Source, place: Place) -> None:
    asks(source)
    place.add("other")
    place.paths().config.unlink()
    with pytest.raises(ConfigError):
        source.store()


def test_a_password_in_the_settings_is_in_no_error(place: Place) -> None:
    place.configure(database="mysql://somebody:s3cret@127.0.0.1:1/nothing")
    with pytest.raises(StoreUnavailable) as caught:
        Source(Home(place.home.root), {}).store()
    assert "s3cret" not in str(caught.value)


def test_of_a_database_that_is_away_one_finds_out_and_the_others_are_told_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks(monkeypatch, StoreUnavailable("it is away"))
    source = Source(Home(place.home.root), {})
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(source.store)
        looks.wait_begun(1)
        looks.go_on()
        assert isinstance(first.exception(PATIENCE), StoreUnavailable)
        # A while later somebody looks again, which takes its time.
        source._looked = float("-inf")
        second = pool.submit(source.store)
        looks.wait_begun(2)
        for _ in range(50):
            with pytest.raises(StoreUnavailable, match="it is away"):
                source.store()
        assert looks.begun == 2
        looks.go_on()
        second.exception(PATIENCE)


def test_before_anything_is_known_others_wait_a_moment_for_whoever_looks(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "_PATIENCE", 0.01)
    looks = Looks(monkeypatch, StoreUnavailable("it is away"))
    source = Source(Home(place.home.root), {})
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(source.store)
        looks.wait_begun(1)
        with pytest.raises(StoreUnavailable, match="has not answered yet"):
            source.store()
        looks.go_on()
        first.exception(PATIENCE)


def test_while_one_looks_anew_the_others_have_what_there_was(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = source.store()
    looks = Looks(monkeypatch, StoreUnavailable("it is away"))
    source._looked = float("-inf")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(source.store)
        looks.wait_begun(1)
        assert source.store() is before
        assert asks(source) == 1
        looks.go_on()
        first.exception(PATIENCE)


def test_an_error_is_not_the_same_object_for_all(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each raise adds to its traceback, and so keeps all that its frames hold."""
    monkeypatch.setattr(source_module, "_AWAY", PATIENCE)
    looks = Looks(monkeypatch, StoreUnavailable("it is away", hint="bring it back"))
    looks.go_on()
    source = Source(Home(place.home.root), {})
    found = []
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="away; bring it back") as caught:
            source.store()
        found.append(caught.value)
    assert len(set(map(id, found))) == 3


def test_what_is_found_out_about_the_one_before_says_nothing_of_the_one_of_now(
    source: Source,
) -> None:
    source.store()
    entered, left = threading.Event(), threading.Event()

    def reads_for_long() -> None:
        with source.watched():
            entered.set()
            assert left.wait(PATIENCE)
            raise StoreUnavailable("the connection was lost")

    with ThreadPoolExecutor(1) as pool:
        old = pool.submit(reads_for_long)
        assert entered.wait(PATIENCE)
        source._looked = float("-inf")
        fresh = source.store()
        left.set()
        assert isinstance(old.exception(PATIENCE), StoreUnavailable)
    assert source.store() is fresh


def test_an_error_that_does_not_concern_the_database_leaves_it(source: Source) -> None:
    before = source.store()
    for error in (StoreConflict("a lock"), ConfigError("a setting"), ValueError("something")):
        with pytest.raises(type(error)), source.watched():
            raise error
    assert source.store() is before


@pytest.mark.usefixtures("impatient")
def test_many_threads_read_while_the_database_is_opened_anew_all_the_time(
    source: Source, place: Place
) -> None:
    _all_succeed(source, lambda number: place.configure(settle_max=20 + number % 5))


@pytest.mark.usefixtures("impatient")
def test_a_server_is_not_left_with_connections_when_it_is_opened_anew_all_the_time(
    mariadb_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "_ANSWERING", PATIENCE)
    monkeypatch.setattr(source_module, "_CONNECTING", PATIENCE)
    patient = {"database_timeout": PATIENCE, "connect_timeout": PATIENCE}
    place = Place(mariadb_database.home / "console", mariadb_database.url, **patient)
    source = Source(Home(place.home.root), {})
    engine = mariadb_database.engine()
    before = _connections(engine)
    _all_succeed(source, lambda _: None)
    source.close()
    wait_until(lambda: _connections(engine) <= before, "the end of all connections")


def test_a_server_that_hangs_is_told_and_found_again(
    mariadb_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "_AWAY", 0.0)
    monkeypatch.setattr(source_module, "_ANSWERING", 1.0)
    monkeypatch.setattr(source_module, "_CONNECTING", 1.0)
    place = Place(mariadb_database.home / "console", mariadb_database.url)
    source = Source(Home(place.home.root), {})

    def is_answered() -> bool:
        # On a busy machine a server that is well may take longer than it is waited for.
        with contextlib.suppress(StoreUnavailable):
            return asks(source) == 1
        return False

    wait_until(is_answered, "an answer")
    with mariadb_database.stop_cont():
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                asks(source)
    wait_until(is_answered, "another answer")
    source.close()


def test_a_page_waits_no_longer_than_pages_do_whatever_servers_wait(
    source: Source, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.configure(connect_timeout=100, database_timeout=2)
    seen = []
    real = source_module.open_reading

    def noted(settings: Settings, home: Path, *, keep: bool) -> ReadingStore:
        seen.append((settings.connect_timeout, settings.database_timeout))
        return real(settings, home, keep=keep)

    monkeypatch.setattr(source_module, "open_reading", noted)
    source.store()
    assert seen == [(5.0, 2.0)]


class Looks:
    """Stands for opening the database: each look waits until it is told to go on, then fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: DataserverError) -> None:
        self.begun = 0
        self._error = error
        self._may = threading.Semaphore(0)
        monkeypatch.setattr(source_module, "open_reading", self._open)

    def _open(self, *_: object, keep: bool) -> ReadingStore:
        self.begun += 1
        assert self._may.acquire(timeout=PATIENCE)
        raise self._error

    def go_on(self) -> None:
        self._may.release()

    def wait_begun(self, count: int) -> None:
        wait_until(lambda: self.begun >= count, f"{count} looks")


def _all_succeed(source: Source, disturb: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(asks, source) for _ in range(200)]
        for number, each in enumerate(asked):
            disturb(number)
            assert each.result(PATIENCE) == 1


def _connections(engine: Engine) -> int:
    """Those to this database, the one that asks among them."""
    query = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = DATABASE()"
    with engine.connect() as conn:
        return int(conn.execute(text(query)).scalar_one())
