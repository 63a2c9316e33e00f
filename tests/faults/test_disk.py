"""A full disk, under the database or under var/: nothing is lost, and all goes on with room."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataserver.errors import Reason
from tests.faults import corpus
from tests.faults.conftest import Undisturbed, backlog, on_sqlite, shares
from tests.faults.corpus import File
from tests.support.databases import SQLITE, Database, opened
from tests.support.disk import Disk, mounted
from tests.support.dump import differences, dump
from tests.support.server import Place, Server

BAD = b"<agent_data>it has no name</agent_data>"


@pytest.fixture
def disk(store: Database) -> Iterator[Disk]:
    """The disk of var/, 16 MB."""
    with mounted(store.home / "var", 16 << 20) as disk:
        yield disk


class TestOfTheDatabase:
    """SQLite's file lies in var/, as it does by default."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Database]:
        with opened(SQLITE, tmp_path / "home", bare=True) as database:
            yield database

    @pytest.mark.parametrize(
        "free",
        [
            pytest.param(100_000, marks=pytest.mark.long),
            400_000,
            pytest.param(1_000_000, marks=pytest.mark.long),
        ],
    )
    def test_full_amid_the_making_of_the_database_or_a_backlog_it_is_waited_for(
        self,
        place: Place,
        store: Database,
        disk: Disk,
        small: list[File],
        undisturbed: Undisturbed,
        free: int,
    ) -> None:
        corpus.write(small, place.data_in())
        disk.fill(free)
        with Server(place) as server:
            server.wait(lambda: "disk is full" in server.log, "a word about it")
            assert place.packets_left()
            disk.make_room()
            server.wait_taken()
            assert server.stop() == 0
        assert differences(undisturbed(store, small), dump(store.engine())) == []

    @pytest.mark.long
    def test_filled_again_and_again_it_goes_on_each_time(
        self,
        place: Place,
        store: Database,
        disk: Disk,
        large: list[File],
        undisturbed: Undisturbed,
    ) -> None:
        with Server(place) as server:
            server.wait_ready()
            for *share, last in shares(large, 3):
                backlog(server, share)
                server.wait(lambda share=share: len(place.packets_left()) < len(share), "progress")
                server.send(signal.SIGSTOP)
                disk.fill()
                # However fast it was, there is something left to do.
                corpus.write([last], place.data_in())
                said = server.log.count("disk is full")
                server.send(signal.SIGCONT)
                server.wait(lambda said=said: server.log.count("disk is full") > said, "a word")
                disk.make_room()
                server.wait_taken()
            assert server.stop() == 0
        assert differences(undisturbed(store, large), dump(store.engine())) == []


class TestOfVar:
    """The database is elsewhere: packets are stored although nothing can be written here."""

    @pytest.fixture
    def place(self, store: Database) -> Place:
        url = "sqlite:///other.db" if store.kind == SQLITE else store.url
        return Place(store.home, url, batch_packets=5)

    @pytest.mark.long
    def test_full_from_the_start_packets_are_stored_all_the_same(
        self, place: Place, disk: Disk, few: list[File]
    ) -> None:
        disk.fill()
        corpus.write(few, place.data_in())
        with Server(place) as server:
            taken(server)
            disk.make_room()
            server.wait_counted("packets", len(few))
            assert server.stop() == 0

    @on_sqlite
    def test_full_a_bad_packet_stays_until_there_is_room(
        self, place: Place, disk: Disk, few: list[File]
    ) -> None:
        with Server(place) as server:
            server.wait_ready()
            disk.fill()
            bad = place.drop("bad.1.data", BAD)
            corpus.write(few, place.data_in())
            server.wait(lambda: place.packets_left() == ["bad.1.data"], "the good ones stored")
            assert bad.read_bytes() == BAD
            disk.make_room()
            server.wait(place.rejected, "the rejected packet")
            assert [packet.reason for packet in place.rejected()] == [Reason.NO_AGENT]
            server.wait(lambda: not bad.exists(), "the bad one gone")
            server.wait_counted("packets", len(few))
            assert server.stop() == 0

    @on_sqlite
    def test_full_what_cannot_be_set_aside_is_spoken_of_once_however_often_it_is_tried(
        self, place: Place, disk: Disk, few: list[File]
    ) -> None:
        with Server(place) as server:
            server.wait_ready()
            disk.fill()
            place.drop("bad.1.data", BAD)
            for file in few[:5]:
                # Each brings a scan of its own, which finds the bad one again.
                place.drop(file.name, file.content)
                server.wait(lambda: place.packets_left() == ["bad.1.data"], "it stored")
            assert server.log.count("cannot move 'bad.1.data' to ") == 1
            assert server.stop() == 0


def taken(server: Server) -> None:
    """Wait until all packets are gone, of a server that cannot write its status."""
    server.wait(lambda: not server.place.packets_left(), "an empty drop directory")
