"""Reading in a thread that is replaced before it has grown by what uploaders send."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import pytest

from dataserver.errors import SpoolError
from dataserver.ingest.read import ParserThread, ReadBatch
from dataserver.spool.files import SpoolFile


class Packets:
    """Stands for the packet reader: notes the thread, and reads ``size`` bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.threads: list[threading.Thread] = []

    def read(self, files: Iterable[SpoolFile]) -> ReadBatch:
        self.threads.append(threading.current_thread())
        return ReadBatch(bytes=self.size)


def test_the_thread_lasts_as_long_as_little_is_read() -> None:
    packets = Packets(10)
    parser = ParserThread(packets.read, bytes_per_thread=1000)
    for _ in range(50):
        assert parser.read([]).bytes == 10
    parser.close()
    assert len(set(packets.threads)) == 1
    assert packets.threads[0] is not threading.current_thread()


def test_the_thread_is_replaced_when_it_has_read_enough() -> None:
    packets = Packets(600)
    parser = ParserThread(packets.read, bytes_per_thread=1000)
    for _ in range(6):
        parser.read([])
    assert len(set(packets.threads)) == 3
    assert sum(thread.is_alive() for thread in set(packets.threads)) == 1
    parser.close()
    assert not any(thread.is_alive() for thread in packets.threads)


def test_an_error_of_the_drop_directory_reaches_the_worker() -> None:
    def fails(files: Iterable[SpoolFile]) -> ReadBatch:
        raise SpoolError("gone")

    parser = ParserThread(fails)
    with pytest.raises(SpoolError):
        parser.read([])
    parser.close()
