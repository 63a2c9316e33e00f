"""The doorbell: rings for packets, coalesces, counts overflows, and degrades to a timer."""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from dataserver.spool import watch
from dataserver.spool.files import is_packet_name
from dataserver.spool.watch import Watch
from tests.support.waiting import PATIENCE, wait_until


class Watched(Watch):
    """A bell that tells when it has heard of everything that happened so far."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, matters=self._look)
        self._heard: set[str] = set()
        self._marks = count()

    def _look(self, name: str) -> bool:
        self._heard.add(name)
        return is_packet_name(name)

    def is_silent(self) -> bool:
        """Whether nothing of what happened so far rang; to be asked while it is watching.

        Events come in order: once a file with a foreign name was heard of, all before were too.
        """
        mark = f"mark-{next(self._marks)}"
        write(self.path / mark)
        wait_until(lambda: mark in self._heard or not self.is_watching, "the bell hears of a file")
        return self.is_watching and not rang(self)


@pytest.fixture
def data_in(tmp_path: Path) -> Path:
    path = tmp_path / "data_in"
    path.mkdir()
    return path


@pytest.fixture
def bell(data_in: Path) -> Iterator[Watched]:
    bell = Watched(data_in)
    bell.start()
    yield bell
    bell.stop()


def write(path: Path) -> None:
    path.write_bytes(b"x")


def rang(bell: Watch, seconds: float = 0.0) -> bool:
    """Whether it has rung, or does so in this time; without answering."""
    poll = select.poll()
    poll.register(bell._bell, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def settle(bell: Watched) -> None:
    """Take in every ring that is still on its way."""
    wait_until(lambda: not bell.wait(0) and bell.is_silent(), "the bell to be silent")


def test_a_written_file_rings(data_in) -> None:
    bell = Watch(data_in)
    bell.start()
    write(data_in / "a.1.data")
    assert bell.wait(PATIENCE)
    bell.stop()


def test_a_file_that_is_closed_after_a_while_rings_again(bell, data_in) -> None:
    with (data_in / "a.1.data").open("wb") as file:
        settle(bell)
        file.write(b"x")
        file.flush()
        assert bell.is_silent()
    assert bell.wait(PATIENCE)


def test_a_file_moved_in_rings(bell, data_in, tmp_path) -> None:
    write(tmp_path / "new")
    (tmp_path / "new").rename(data_in / "a.1.data")
    assert bell.wait(PATIENCE)


def test_a_file_renamed_in_place_rings(bell, data_in) -> None:
    write(data_in / ".a.1.data.Ab12Cd")
    settle(bell)
    (data_in / ".a.1.data.Ab12Cd").rename(data_in / "a.1.data")
    assert bell.wait(PATIENCE)


def test_a_hard_link_rings(bell, data_in, tmp_path) -> None:
    write(tmp_path / "new")
    os.link(tmp_path / "new", data_in / "a.1.data")
    assert bell.wait(PATIENCE)


def test_a_file_that_becomes_readable_rings(bell, data_in) -> None:
    write(data_in / "a.1.data")
    settle(bell)
    (data_in / "a.1.data").chmod(0o600)
    assert bell.wait(PATIENCE)


def test_a_name_that_is_not_utf8_rings(bell, data_in) -> None:
    write(Path(os.fsdecode(os.fsencode(data_in) + b"/caf\xe9.1.data")))
    assert bell.wait(PATIENCE)


def test_foreign_names_folders_and_what_leaves_do_not_ring(bell, data_in, tmp_path) -> None:
    write(data_in / "a.1.data")
    settle(bell)
    write(data_in / "notes.txt")
    write(data_in / "a.1.checksum")
    (data_in / "x.1.data").mkdir()
    (data_in / "a.1.data").read_bytes()
    (data_in / "a.1.data").rename(tmp_path / "gone")
    assert bell.is_silent()


def test_unlinking_does_not_ring(bell, data_in) -> None:
    write(data_in / "a.1.data")
    settle(bell)
    (data_in / "a.1.data").unlink()
    assert bell.is_silent()


def test_a_burst_is_one_ring_and_the_bell_rings_again_after_it(bell, data_in) -> None:
    for number in range(500):
        write(data_in / f"a.{number}.data")
    assert bell.wait(PATIENCE)
    settle(bell)
    write(data_in / "b.1.data")
    assert bell.wait(PATIENCE)


def test_a_bell_that_rang_takes_no_further_events_until_it_is_answered(bell, data_in) -> None:
    write(data_in / "a.1.data")
    assert rang(bell, PATIENCE)
    assert not bell.is_watching
    bell.wait(0)
    assert bell.is_watching


def test_what_comes_between_the_ring_and_the_answer_is_there_for_the_scan(bell, data_in) -> None:
    write(data_in / "a.1.data")
    assert rang(bell, PATIENCE)
    write(data_in / "b.1.data")
    assert bell.wait(0)
    write(data_in / "c.1.data")
    assert bell.wait(PATIENCE)


def test_nothing_rings_and_the_timer_ends_the_wait(bell) -> None:
    assert not bell.wait(0.01)


def test_it_can_be_rung_from_another_thread(bell) -> None:
    timer = threading.Timer(0.05, bell.ring)
    timer.start()
    assert bell.wait(PATIENCE)
    timer.join()


def test_it_can_be_rung_from_a_signal_handler_of_the_waiting_thread(bell) -> None:
    previous = signal.signal(signal.SIGALRM, lambda *_: bell.ring())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert bell.wait(PATIENCE)
    finally:
        signal.signal(signal.SIGALRM, previous)


def test_an_overflow_rings_and_is_counted(data_in) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    blocked = threading.Event()
    release = threading.Event()

    def block_on_the_first(name: str) -> bool:
        blocked.set()
        assert release.wait(PATIENCE)
        return False

    bell = Watch(data_in, matters=block_on_the_first)
    bell.start()
    try:
        write(data_in / "first")
        assert blocked.wait(PATIENCE)
        # Two kinds of events in turn, so that the kernel cannot make them one.
        for _ in range(limit):
            os.chmod(data_in / "first", 0o600)
            os.close(os.open(data_in / "first", os.O_WRONLY))
        release.set()
        assert bell.wait(PATIENCE)
        assert bell.overflows == 1
    finally:
        release.set()
        bell.stop()


def test_without_inotify_it_is_a_timer_and_says_so_once(data_in, monkeypatch, caplog) -> None:
    def no_more() -> None:
        raise OSError(errno.EMFILE, "inotify instance limit reached")

    with monkeypatch.context() as patch:
        patch.setattr(watch, "InotifyFD", no_more)
        bell = Watch(data_in)
        bell.start()
        write(data_in / "a.1.data")
        for _ in range(3):
            assert not bell.wait(0.01)
        assert not bell.is_watching
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "inotify instance limit reached" in caplog.text
    bell.wait(0)
    assert bell.is_watching
    bell.stop()


def test_a_deleted_directory_rings_and_a_new_one_is_watched_again(bell, data_in, caplog) -> None:
    data_in.rmdir()
    assert bell.wait(PATIENCE)
    bell.wait(0)
    assert "No such file or directory" in caplog.text
    data_in.mkdir()
    assert not bell.wait(0)
    write(data_in / "a.1.data")
    assert bell.wait(PATIENCE)


def test_stopping_leaves_no_thread_and_no_descriptor(data_in) -> None:
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    bell = Watch(data_in)
    bell.start()
    bell.stop()
    bell.stop()
    bell.ring()
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors
