"""The heartbeat and the status file: what is written, what is told from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from dataserver.runtime.heartbeat import (
    STALE_AFTER,
    STUCK_AFTER,
    Beat,
    Heartbeat,
    Phase,
    State,
    Status,
    process_start,
    write_atomic,
)
from tests.support.clock import Clock
from tests.support.waiting import PATIENCE


@pytest.fixture
def alive() -> Beat:
    """A beat of this very process, written at 1000."""
    return Beat(
        pid=os.getpid(),
        process_start=process_start(os.getpid()),
        run="r",
        phase=Phase.IDLE,
        phase_since=990.0,
        phase_seconds=10.0,
        beat=5,
        loop_seconds=0.5,
        time=1000.0,
    )


class TestState:
    def test_a_fresh_beat_of_a_living_process_is_running(self, alive: Beat) -> None:
        assert alive.state(1001.0) is State.RUNNING

    def test_a_stale_beat_of_a_living_process_is_stuck(self, alive: Beat) -> None:
        assert alive.state(1001.0 + STALE_AFTER) is State.STUCK

    def test_a_loop_that_does_not_move_is_stuck(self, alive: Beat) -> None:
        stuck = replace(alive, phase=Phase.STORING, loop_seconds=STUCK_AFTER + 1)
        assert stuck.state(1001.0) is State.STUCK

    def test_waiting_for_the_database_is_not_stuck(self, alive: Beat) -> None:
        waiting = replace(alive, phase=Phase.WAITING_FOR_DATABASE, loop_seconds=STUCK_AFTER + 1)
        assert waiting.state(1001.0) is State.RUNNING

    def test_a_stopped_process_that_waited_for_the_database_is_stuck(self, alive: Beat) -> None:
        waiting = replace(alive, phase=Phase.WAITING_FOR_DATABASE)
        assert waiting.state(1001.0 + STALE_AFTER) is State.STUCK

    def test_a_process_that_ended_is_dead(self, alive: Beat) -> None:
        child = subprocess.Popen([sys.executable, "-c", ""])
        started = process_start(child.pid)
        child.wait()
        assert replace(alive, pid=child.pid, process_start=started).state(1001.0) is State.DEAD

    def test_another_process_under_the_same_pid_is_not_it(self, alive: Beat) -> None:
        assert replace(alive, process_start=1).state(1001.0) is State.DEAD

    def test_one_that_said_goodbye_is_stopped(self, alive: Beat) -> None:
        assert replace(alive, phase=Phase.STOPPED).state(9999.0) is State.STOPPED


class TestHeartbeat:
    def test_it_says_phase_and_how_long_by_a_clock_that_nobody_sets(self, tmp_path: Path) -> None:
        clock, monotonic = Clock(1000.0), Clock(50.0)
        heart = Heartbeat(tmp_path / "h", "r", clock=clock, monotonic=monotonic)
        heart.enter(Phase.STORING)
        clock.now, monotonic.now = 400.0, 53.0
        beat = heart.current()
        assert beat.phase is Phase.STORING
        assert (beat.phase_since, beat.phase_seconds, beat.loop_seconds) == (1000.0, 3.0, 3.0)
        assert beat.time == 400.0

    def test_a_step_moves_the_loop_and_keeps_the_phase(self, tmp_path: Path) -> None:
        clock, monotonic = Clock(1000.0), Clock(50.0)
        heart = Heartbeat(tmp_path / "h", "r", clock=clock, monotonic=monotonic)
        heart.enter(Phase.STORING)
        before = heart.current().beat
        monotonic.now = 53.0
        heart.enter(Phase.STORING)
        beat = heart.current()
        assert beat.beat == before + 1
        assert (beat.phase_seconds, beat.loop_seconds) == (3.0, 0.0)

    def test_the_thread_goes_on_writing(self, tmp_path: Path) -> None:
        path = tmp_path / "heartbeat.json"
        twice = Event()
        times = []

        def clock() -> float:
            times.append(1)
            if len(times) > 4:
                twice.set()
            return 1000.0

        heart = Heartbeat(path, "r", interval=0.001, clock=clock)
        heart.start()
        try:
            assert twice.wait(PATIENCE)
        finally:
            heart.stop()
        beat = Beat.read(path)
        assert beat is not None
        assert beat.pid == os.getpid()

    def test_the_last_beat_says_that_it_stopped(self, tmp_path: Path) -> None:
        path = tmp_path / "heartbeat.json"
        heart = Heartbeat(path, "r")
        heart.start()
        heart.stop()
        beat = Beat.read(path)
        assert beat is not None
        assert beat.phase is Phase.STOPPED

    def test_it_survives_that_its_file_cannot_be_written(self, tmp_path: Path) -> None:
        folder = tmp_path / "var"
        folder.mkdir()
        heart = Heartbeat(folder / "heartbeat.json", "r", interval=0.001)
        heart.start()
        (folder / "heartbeat.json").unlink()
        folder.rename(tmp_path / "away")
        heart.stop()
        assert not folder.exists()

    def test_it_is_one_line_that_a_shell_can_read(self, tmp_path: Path) -> None:
        path = tmp_path / "heartbeat.json"
        heart = Heartbeat(path, "r")
        heart.start()
        heart.stop()
        text = path.read_text()
        assert text.count("\n") == 1
        assert '"phase": "stopped"' in text

    def test_what_is_no_heartbeat_is_none(self, tmp_path: Path) -> None:
        for text in ("", "{", "[]", "{}", '{"phase": "dancing"}'):
            (tmp_path / "h").write_text(text)
            assert Beat.read(tmp_path / "h") is None, text


class TestStatus:
    STATUS = Status(
        instance="main",
        server_name="s",
        version="1",
        pid=1,
        run="r",
        started=1.0,
        written=2.0,
        phase="idle",
        data_in="/d",
        database="sqlite:///x",
        unreadable={"a.1.data": "Permission denied"},
    )

    def test_it_is_read_back_as_it_was_written(self, tmp_path: Path) -> None:
        self.STATUS.write(tmp_path / "s")
        assert Status.read(tmp_path / "s") == self.STATUS

    def test_what_a_newer_version_added_is_left_out(self, tmp_path: Path) -> None:
        self.STATUS.write(tmp_path / "s")
        data = json.loads((tmp_path / "s").read_text())
        (tmp_path / "s").write_text(json.dumps({**data, "mood": "fine"}))
        assert Status.read(tmp_path / "s") == self.STATUS

    def test_a_missing_one_is_none(self, tmp_path: Path) -> None:
        assert Status.read(tmp_path / "s") is None


def test_an_atomic_write_leaves_only_the_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "f", "one")
    write_atomic(tmp_path / "f", "two")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("f", "two")]


class TestTelling:
    """What whoever started the process is told with each beat."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock(50.0)

    @pytest.fixture
    def told(self) -> list[str]:
        return []

    @pytest.fixture
    def heart(self, tmp_path: Path, clock: Clock, told: list[str]) -> Heartbeat:
        return Heartbeat(
            tmp_path / "h", "r", interval=3600, clock=clock, monotonic=clock, notify=told.append
        )

    def beat(self, heart: Heartbeat, told: list[str]) -> list[str]:
        told.clear()
        heart._write()
        (message,) = told
        return message.split("\n")

    def test_it_is_ready_once_it_has_left_its_start(self, heart: Heartbeat, told) -> None:
        assert "READY=1" not in self.beat(heart, told)
        heart.enter(Phase.IDLE)
        assert self.beat(heart, told) == ["STATUS=idle", "READY=1", "WATCHDOG=1"]
        assert "READY=1" not in self.beat(heart, told)

    def test_it_is_ready_after_some_seconds_whatever_holds_it_up(
        self, heart: Heartbeat, clock: Clock, told
    ) -> None:
        assert "READY=1" not in self.beat(heart, told)
        clock.advance(5)
        assert "READY=1" in self.beat(heart, told)

    def test_a_loop_that_does_not_move_is_not_said_to_be_well(
        self, heart: Heartbeat, clock: Clock, told
    ) -> None:
        heart.enter(Phase.STORING)
        clock.advance(STUCK_AFTER + 1)
        assert "WATCHDOG=1" not in self.beat(heart, told)
        heart.step()
        assert "WATCHDOG=1" in self.beat(heart, told)

    def test_one_that_waits_for_the_database_is_well(
        self, heart: Heartbeat, clock: Clock, told
    ) -> None:
        heart.enter(Phase.WAITING_FOR_DATABASE)
        clock.advance(10 * STUCK_AFTER)
        assert "WATCHDOG=1" in self.beat(heart, told)

    def test_a_longer_patience_is_kept_and_written(
        self, heart: Heartbeat, clock: Clock, told, tmp_path: Path
    ) -> None:
        heart.stuck_after = 1000.0
        heart.enter(Phase.STORING)
        clock.advance(STUCK_AFTER + 1)
        assert "WATCHDOG=1" in self.beat(heart, told)
        beat = Beat.read(tmp_path / "h")
        assert beat is not None
        assert beat.state(clock.now) is State.RUNNING

    def test_it_says_that_it_leaves(self, heart: Heartbeat, told) -> None:
        heart.stop()
        assert "STOPPING=1" in told[-1].split("\n")

    def test_it_is_said_also_where_no_heartbeat_can_be_written(self, tmp_path: Path, told) -> None:
        heart = Heartbeat(tmp_path / "missing" / "h", "r", notify=told.append)
        assert "WATCHDOG=1" in self.beat(heart, told)
