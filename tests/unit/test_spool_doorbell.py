"""The doorbell: rings for packets, coalesces, counts overflows, and degrades to a timer."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataserver.spool import doorbell
from dataserver.spool.doorbell import Doorbell

#: Longer than any event takes; only a test that fails waits for it.
SOON = 10.0
#: For what must not ring: an event that was on its way has arrived by then.
MOMENT = 0.3


@pytest.fixture
def data_in(tmp_path: Path) -> Path:
    path = tmp_path / "data_in"
    path.mkdir()
    return path


@pytest.fixture
def bell(data_in: Path) -> Iterator[Doorbell]:
    bell = Doorbell(data_in)
    bell.start()
    yield bell
    bell.stop()


def write(path: Path) -> None:
    path.write_bytes(b"x")


def settle(bell: Doorbell) -> None:
    """Take in every ring that is still on its way."""
    while bell.wait(MOMENT):
        pass


def test_a_written_file_rings(bell, data_in) -> None:
    write(data_in / "a.1.data")
    assert bell.wait(SOON)


def test_a_file_that_is_closed_after_a_while_rings_again(bell, data_in) -> None:
    with (data_in / "a.1.data").open("wb") as file:
        settle(bell)
        file.write(b"x")
        file.flush()
        assert not bell.wait(MOMENT)
    assert bell.wait(SOON)


def test_a_file_moved_in_rings(bell, data_in, tmp_path) -> None:
    write(tmp_path / "new")
    (tmp_path / "new").rename(data_in / "a.1.data")
    assert bell.wait(SOON)


def test_a_file_renamed_in_place_rings(bell, data_in) -> None:
    write(data_in / ".a.1.data.Ab12Cd")
    settle(bell)
    (data_in / ".a.1.data.Ab12Cd").rename(data_in / "a.1.data")
    assert bell.wait(SOON)


def test_a_hard_link_rings(bell, data_in, tmp_path) -> None:
    write(tmp_path / "new")
    os.link(tmp_path / "new", data_in / "a.1.data")
    assert bell.wait(SOON)


def test_a_file_that_becomes_readable_rings(bell, data_in) -> None:
    write(data_in / "a.1.data")
    settle(bell)
    (data_in / "a.1.data").chmod(0o600)
    assert bell.wait(SOON)


def test_a_name_that_is_not_utf8_rings(bell, data_in) -> None:
    write(Path(os.fsdecode(os.fsencode(data_in) + b"/caf\xe9.1.data")))
    assert bell.wait(SOON)


def test_foreign_names_folders_and_what_leaves_do_not_ring(bell, data_in, tmp_path) -> None:
    write(data_in / "a.1.data")
    settle(bell)
    write(data_in / "notes.txt")
    write(data_in / "a.1.checksum")
    (data_in / "x.1.data").mkdir()
    (data_in / "a.1.data").read_bytes()
    (data_in / "a.1.data").rename(tmp_path / "gone")
    assert not bell.wait(MOMENT)


def test_unlinking_does_not_ring(bell, data_in) -> None:
    write(data_in / "a.1.data")
    settle(bell)
    (data_in / "a.1.data").unlink()
    assert not bell.wait(MOMENT)


def test_a_burst_is_one_ring_and_the_bell_rings_again_after_it(bell, data_in) -> None:
    for number in range(500):
        write(data_in / f"a.{number}.data")
    assert bell.wait(SOON)
    settle(bell)
    write(data_in / "b.1.data")
    assert bell.wait(SOON)


def test_a_bell_that_rang_takes_no_further_events_until_it_is_answered(bell, data_in) -> None:
    write(data_in / "a.1.data")
    select_ready(bell)
    assert not bell.hooked
    bell.wait(0)
    assert bell.hooked


def select_ready(bell: Doorbell) -> None:
    """Wait until it has rung, without answering."""
    poll = doorbell.select.poll()
    poll.register(bell._bell, doorbell.select.POLLIN)
    assert poll.poll(SOON * 1000)


def test_what_comes_between_the_ring_and_the_answer_is_there_for_the_scan(bell, data_in) -> None:
    write(data_in / "a.1.data")
    select_ready(bell)
    write(data_in / "b.1.data")
    assert bell.wait(0)
    write(data_in / "c.1.data")
    assert bell.wait(SOON)


def test_nothing_rings_and_the_timer_ends_the_wait(bell) -> None:
    assert not bell.wait(0.01)


def test_it_can_be_rung_from_another_thread(bell) -> None:
    timer = threading.Timer(0.05, bell.ring)
    timer.start()
    assert bell.wait(SOON)
    timer.join()


def test_it_can_be_rung_from_a_signal_handler_of_the_waiting_thread(bell) -> None:
    previous = signal.signal(signal.SIGALRM, lambda *_: bell.ring())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert bell.wait(SOON)
    finally:
        signal.signal(signal.SIGALRM, previous)


def test_an_overflow_rings_and_is_counted(data_in) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    blocked = threading.Event()
    release = threading.Event()

    def block_on_the_first(name: str) -> bool:
        blocked.set()
        assert release.wait(60)
        return False

    bell = Doorbell(data_in, matters=block_on_the_first)
    bell.start()
    try:
        write(data_in / "first")
        assert blocked.wait(SOON)
        # Two kinds of events in turn, so that the kernel cannot make them one.
        for _ in range(limit):
            os.chmod(data_in / "first", 0o600)
            os.close(os.open(data_in / "first", os.O_WRONLY))
        release.set()
        assert bell.wait(SOON)
        assert bell.overflows == 1
    finally:
        release.set()
        bell.stop()


def test_without_inotify_it_is_a_timer_and_says_so_once(data_in, monkeypatch, caplog) -> None:
    def no_more() -> None:
        raise OSError(errno.EMFILE, "inotify instance limit reached")

    with monkeypatch.context() as patch:
        patch.setattr(doorbell, "InotifyFD", no_more)
        bell = Doorbell(data_in)
        bell.start()
        write(data_in / "a.1.data")
        for _ in range(3):
            assert not bell.wait(0.01)
        assert not bell.hooked
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "inotify instance limit reached" in caplog.text
    bell.wait(0)
    assert bell.hooked
    bell.stop()


def test_a_deleted_directory_rings_and_a_new_one_is_watched_again(bell, data_in, caplog) -> None:
    data_in.rmdir()
    assert bell.wait(SOON)
    bell.wait(0)
    assert "No such file or directory" in caplog.text
    data_in.mkdir()
    assert not bell.wait(0)
    write(data_in / "a.1.data")
    assert bell.wait(SOON)


def test_stopping_leaves_no_thread_and_no_descriptor(data_in) -> None:
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    bell = Doorbell(data_in)
    bell.start()
    bell.stop()
    bell.stop()
    bell.ring()
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors
