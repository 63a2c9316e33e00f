"""What becomes of odd entries of the drop directory, by a running server."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from dataserver.config import load
from dataserver.errors import Reason
from dataserver.ingest.worker import Worker
from dataserver.runtime.heartbeat import Phase
from tests.support.databases import SQLITE, opened
from tests.support.dump import Dump, dump
from tests.support.failures import failures
from tests.support.house import House, agent, good, house, on_sqlite
from tests.support.packets import START, module, packet
from tests.support.server import Place, Server
from tests.support.waiting import wait_until

__all__ = ["agent", "house"]


@on_sqlite
def test_what_is_no_regular_file_is_not_opened_not_touched_and_named_once(
    house: House, agent: str, tmp_path: Path
) -> None:
    folder = house.place.data_in()
    aim = tmp_path / "aim"
    aim.write_bytes(good(agent))
    odd = {kind: folder / f"{agent}-{kind}.1.data" for kind in ("link", "pipe", "folder", "device")}
    odd["link"].symlink_to(aim)
    os.mkfifo(odd["pipe"])
    odd["folder"].mkdir()
    # The one device that anybody may make; its numbers are those of no driver.
    os.mknod(odd["device"], stat.S_IFCHR | 0o600, os.makedev(0, 0))
    before = {path: seen(path) for path in odd.values()}
    for _ in range(3):
        house.stays_well()
    assert {path: seen(path) for path in odd.values()} == before
    assert house.packets(agent) == 0
    for path in odd.values():
        assert house.server.log.count(path.name) == 1
    with pytest.raises(OSError, match="No such device"):
        # Nobody has it open for reading.
        os.open(odd["pipe"], os.O_WRONLY | os.O_NONBLOCK)
    _remove(odd.values())


@on_sqlite
def test_foreign_names_are_not_touched_and_named_once(house: House, agent: str) -> None:
    folder = house.place.data_in()
    names = [
        f"{agent}.data",
        f"{agent}.1.data.part",
        f"{agent}.1.DATA",
        f"{agent}.1.xml",
        f".{agent}.1.data",
        f"{agent}.-1.data",
        f"{agent}.\u0661.data",
    ]
    paths = [folder / name for name in names]
    for path in paths:
        path.write_bytes(good(agent))
    for name in ("conf", "md5", "collections"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "x.1.data").write_bytes(good(agent))
    before = {path: path.stat() for path in paths}
    for _ in range(3):
        house.stays_well()
    assert {path: path.stat() for path in paths} == before
    assert house.packets(agent) == 0
    named = [name for name in names if not name.startswith(".")]
    said = [message["message"] for message in house.server.messages()]
    for name in named:
        assert sum(f"{name!a} in data_in" in text for text in said) == 1
    _remove(paths)


def test_a_file_name_may_be_any_bytes(house: House, agent: str) -> None:
    patterns = (
        *(b"caf\xe9 %b.1.data", b"\xff\xfe%b_2.data"),
        *(b"new\nline%b.3.data", b"%b'\";$(x).4.data"),
    )

    def check(numbered: tuple[int, bytes]) -> None:
        number, pattern = numbered
        sender = f"{agent}-{number}"
        first, second = (pattern % f"{sender}-{word}".encode() for word in ("first", "second"))
        house.drop(good(sender), first)
        house.wait_stored(sender)
        house.drop(b"<no-packet/>", second)
        assert house.rejection(os.fsdecode(second)).reason is Reason.MALFORMED

    assert failures(check, enumerate(patterns)) == {}
    house.stays_well()


def test_the_number_in_a_name_may_be_of_any_length(house: House, agent: str) -> None:
    house.drop(good(agent), f"{agent}.{'9' * 200}.data")
    house.wait_stored(agent)
    house.stays_well()


@pytest.mark.parametrize("how", ["renamed over it", "written over it in place"])
def test_replaced_by_a_new_upload_while_it_is_being_stored_both_packets_are_stored(
    house: House, agent: str, how: str
) -> None:
    first, second = (packet(agent, module("load", value)) for value in "12")
    with database_busy(house):
        begun = time.time()
        name = house.drop(first, f"{agent}.1.data")
        house.server.wait_phase(Phase.STORING, Phase.WAITING_FOR_DATABASE, since=begun)
        if how == "renamed over it":
            house.drop(second, name)
        else:
            (house.place.data_in() / name).write_bytes(second)
    house.wait_stored(agent, 2)
    house.stays_well()


def database_busy(house: House) -> AbstractContextManager[object]:
    """Nothing can be written inside the block; the server waits in the midst of its batch."""
    if house.database.kind == SQLITE:
        # Its connections begin as writers.
        return house.engine.begin()
    return _tables_locked(house)


@contextlib.contextmanager
def _tables_locked(house: House) -> Iterator[None]:
    assert house.database.server is not None
    with contextlib.closing(house.database.server.connect(house.database.name)) as conn:
        conn.cursor().execute("LOCK TABLES tpacket WRITE, tagent_version WRITE, tname WRITE")
        yield


def _remove(paths: Iterable[Path]) -> None:
    """Leave the drop directory to the next test as it was."""
    for path in paths:
        if stat.S_ISDIR(path.lstat().st_mode):
            path.rmdir()
        else:
            path.unlink()


# -- servers of their own -------------------------------------------------------------


def test_an_unreadable_file_stays_is_named_once_shown_and_taken_when_it_becomes_readable(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path / "home", "sqlite:///var/dataserver.db")
    # Root may read everything; without its capabilities it is a user like others.
    powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    with Server(place, wrapper=powerless) as server:
        server.wait_ready()
        part = place.data_in() / ".part"
        part.write_bytes(good("secret"))
        part.chmod(0)
        part.rename(place.data_in() / "secret.1.data")
        server.wait(lambda: "secret.1.data" in server.status["unreadable"], "it in the status")
        for number in range(3):
            place.drop(f"good.{number}.data", packet("good", module("load", str(number))))
            server.wait(lambda: place.packets_left() == ["secret.1.data"], "the good one taken")
        assert sum("secret.1.data" in message["message"] for message in server.messages()) == 1
        (place.data_in() / "secret.1.data").chmod(0o600)
        server.wait_taken()
        server.wait(lambda: not server.status["unreadable"], "nothing unreadable in the status")
        assert server.stop() == 0
    assert place.rejected() == []


def test_the_clock_set_back_an_hour_while_running_makes_no_difference(tmp_path: Path) -> None:
    shifted, straight = (
        _run_with_clock(tmp_path / name, shift) for name, shift in (("back", -3600.0), ("on", 0.0))
    )
    assert shifted == straight


def _run_with_clock(home: Path, shift: float) -> tuple[Dump, list[str]]:
    """A day's packets, a cut one among them, half of them with the clock set; what is left."""
    with opened(SQLITE, home) as database:
        place = Place(home, database.url, incomplete_after=1)
        paths = place.paths()
        offset = 0.0
        worker = Worker(load.load(paths, {}), paths, clock=lambda: time.time() + offset)
        paths.var.mkdir(parents=True)
        thread = threading.Thread(target=worker.run)
        thread.start()

        def wait(condition: Callable[[], object], what: str) -> None:
            wait_until(condition, what, alive=thread.is_alive)

        try:
            for number in range(20):
                if number == 10:
                    offset = shift
                    place.drop("cut.1.data", b'<agent_data agent_name="cut">')
                modules = (
                    module("load", str(number // 3)),
                    module("in", str(number**2), "generic_data_inc"),
                )
                name = f"host.{number}.data"
                place.drop(name, packet("host", *modules, time=START + 300 * number))
                wait(lambda: "host" not in str(place.packets_left()), f"{name} stored")
            wait(place.rejected, "the cut one set aside")
        finally:
            worker.stop()
            thread.join()
        return dump(database.engine()), [each.reason for each in place.rejected()]


def seen(path: Path) -> tuple[int, ...]:
    """How an entry looks, without the time at which it was last read."""
    info = path.lstat()
    return info.st_mode, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns
