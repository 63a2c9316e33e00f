"""Histories of events replayed: what the supervisor starts, signals and gives up, and when."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from dataserver.config.paths import Paths
from dataserver.fleet.model import Instance, RunState
from dataserver.fleet.supervision.supervisor import (
    BRIEF,
    FAILURES,
    HEALTHY,
    OVERSLEPT,
    PAUSE,
    SILENCE_LIMIT,
    START_LIMIT,
    STARTS,
    STOP_LIMIT,
    TABLE,
    TURN,
    Ended,
    Event,
    InstancesListed,
    Notified,
    Shutdown,
    Stage,
    Supervisor,
)
from tests.support.clock import Clocks


@dataclass
class FakeProcess:
    """A process that only remembers what was sent to it."""

    name: str
    pid: int
    sent: list[str] = field(default_factory=list)

    def send(self, number: signal.Signals) -> None:
        self.sent.append(number.name)


def instance(name: str, fingerprint: str = "1", *, enabled: bool = True) -> Instance:
    return Instance(Paths(Path("/home-of-a-test"), name), enabled, fingerprint)


class World:
    """A supervisor, the clock that drives it, and everything that it started."""

    def __init__(self) -> None:
        self.time = Clocks(wall=1e9 + 1000.0, monotonic=1000.0)
        self.started: list[FakeProcess] = []
        self.holders: dict[str, int] = {}
        self.refuse: OSError | None = None
        self.listed: dict[str, Instance] = {}
        self.supervisor = Supervisor(
            self._spawn,
            lambda each: self.holders.get(each.name),
            clock=self.time.wall,
            monotonic=self.time.monotonic,
        )

    @property
    def now(self) -> float:
        return self.time.monotonic.now

    def _spawn(self, each: Instance) -> FakeProcess:
        if self.refuse is not None:
            raise self.refuse
        process = FakeProcess(each.name, 100 + len(self.started))
        self.started.append(process)
        return process

    # -- what happens ------------------------------------------------------------

    def list(self, *instances: Instance) -> None:
        self.listed = {each.name: each for each in instances}
        self.supervisor.react(InstancesListed(instances))

    def change(self, name: str = "a", **changes: object) -> None:
        self.listed[name] = replace(self.listed[name], **changes)  # type: ignore[arg-type]
        self.list(*self.listed.values())

    def ready(self, name: str = "a") -> None:
        process = self.process(name)
        self.supervisor.react(Notified(name, process.pid, ready=True))

    def well(self, name: str = "a") -> None:
        self.supervisor.react(Notified(name, self.process(name).pid))

    def end(self, code: int, name: str = "a", last: str = "") -> None:
        self.supervisor.react(Ended(name, self.process(name).pid, code, last))

    def leave(self) -> None:
        self.supervisor.react(Shutdown())

    def wait(self, seconds: float, *, talking: bool = False) -> None:
        """Let time pass in small steps, as the real loop does."""
        end = self.now + seconds
        while self.now < end:
            self.time.advance(min(0.5, end - self.now))
            if talking:
                for name, managed in self.supervisor.snapshot().items():
                    if managed.state is RunState.RUNNING:
                        self.well(name)
            self.supervisor.tick()

    def sleep(self, seconds: float) -> None:
        """The supervisor itself is stopped for so long."""
        self.time.advance(seconds)
        self.supervisor.tick()

    # -- what is seen ------------------------------------------------------------

    def process(self, name: str = "a") -> FakeProcess:
        return next(each for each in reversed(self.started) if each.name == name)

    def state(self, name: str = "a") -> RunState:
        return self.supervisor.snapshot()[name].state

    def detail(self, name: str = "a") -> str:
        return self.supervisor.snapshot()[name].detail or ""

    def restarts(self, name: str = "a") -> int:
        return self.supervisor.snapshot()[name].restarts


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def running(world: World) -> World:
    """A world in which instance a runs."""
    world.list(instance("a"))
    world.ready()
    return world


class TestStarting:
    def test_every_enabled_instance_is_started_once(self, world: World) -> None:
        world.list(instance("a"), instance("b"), instance("c", enabled=False))
        world.list(instance("a"), instance("b"), instance("c", enabled=False))
        assert [each.name for each in world.started] == ["a", "b"]
        assert [world.state(name) for name in "abc"] == ["starting", "starting", "stopped"]

    def test_it_runs_when_it_says_so(self, world: World) -> None:
        world.list(instance("a"))
        world.ready()
        assert world.state() is RunState.RUNNING
        assert world.supervisor.snapshot()["a"].pid == world.process().pid
        assert world.supervisor.snapshot()["a"].since == 1e9 + world.now

    def test_one_that_says_nothing_at_the_start_is_killed(self, world: World) -> None:
        world.list(instance("a"))
        world.wait(START_LIMIT - 1)
        assert world.process().sent == []
        world.wait(1)
        assert world.process().sent == ["SIGKILL"]

    def test_a_folder_that_appears_is_started(self, running: World) -> None:
        running.list(instance("a"), instance("b"))
        assert [each.name for each in running.started] == ["a", "b"]

    def test_one_whose_lock_another_process_has_is_started_when_that_ends(
        self, world: World
    ) -> None:
        world.holders["a"] = 4711
        world.list(instance("a"))
        world.wait(300)
        assert world.started == []
        assert world.state() is RunState.HELD
        assert "4711" in world.detail()
        del world.holders["a"]
        world.wait(PAUSE[0])
        assert world.state() is RunState.STARTING

    def test_one_that_finds_its_drop_directory_locked_tries_for_ever(self, world: World) -> None:
        world.list(instance("a"))
        for _ in range(3 * FAILURES):
            world.end(4, last="the drop directory is already used by process 9")
            assert world.state() is RunState.HELD
            assert "process 9" in world.detail()
            world.wait(PAUSE[1])
        assert len(world.started) == 3 * FAILURES + 1

    def test_waiting_for_a_drop_directory_is_no_failure(self, world: World) -> None:
        world.list(instance("a"))
        for _ in range(2 * FAILURES):
            world.end(4)
            world.wait(PAUSE[1])
        world.ready()
        world.end(-9)
        assert world.state() is RunState.WAITING

    def test_a_process_that_cannot_be_made_is_tried_again(self, world: World) -> None:
        world.refuse = OSError(11, "Resource temporarily unavailable")
        world.list(instance("a"), instance("b"))
        assert world.state() is RunState.WAITING
        assert "temporarily" in world.detail()
        world.refuse = None
        world.wait(PAUSE[0])
        assert world.state("a") is world.state("b") is RunState.STARTING

    def test_of_many_some_start_at_a_time_and_all_in_the_end(self, world: World) -> None:
        names = [f"i{number:02}" for number in range(3 * STARTS)]
        world.list(*map(instance, names))
        assert len(world.started) == STARTS
        assert world.state(names[-1]) is RunState.WAITING
        while len(world.started) < len(names):
            before = len(world.started)
            starting = [n for n in names if world.state(n) is RunState.STARTING]
            assert len(starting) == STARTS
            world.ready(starting[0])
            world.wait(2 * TURN, talking=True)
            assert len(world.started) == before + 1
        assert sorted(each.name for each in world.started) == names
        assert {world.restarts(name) for name in names} == {0}

    def test_one_that_waits_for_its_turn_can_be_stopped(self, world: World) -> None:
        names = [f"i{number:02}" for number in range(STARTS + 1)]
        world.list(*map(instance, names))
        world.change(names[-1], enabled=False)
        assert world.state(names[-1]) is RunState.STOPPED


class TestFailing:
    def test_one_that_was_killed_comes_back_after_a_pause(self, running: World) -> None:
        running.end(-9)
        assert running.state() is RunState.WAITING
        assert "SIGKILL" in running.detail()
        running.wait(PAUSE[0] / 2)
        assert len(running.started) == 1
        running.wait(PAUSE[0] / 2)
        assert running.state() is RunState.STARTING
        assert running.restarts() == 1

    def test_pauses_grow_and_end_in_giving_up(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.list(instance("a"))
        pauses = []
        while world.state() is not RunState.FAILED:
            world.end(1, last="cannot do it")
            died = world.now
            while world.state() is RunState.WAITING:
                world.wait(0.5)
            pauses.append(world.now - died)
        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 0]
        assert len(pauses) == FAILURES
        world.wait(100_000)
        assert len(world.started) == FAILURES
        assert "cannot do it" in world.detail()
        assert "giving up" in caplog.text
        assert "instances start a" in caplog.text

    def test_a_healthy_run_begins_the_count_anew(self, world: World) -> None:
        world.list(instance("a"))
        for _ in range(3 * FAILURES):
            world.ready()
            world.wait(HEALTHY, talking=True)
            world.end(-11)
            world.wait(PAUSE[0])
        assert world.state() is RunState.STARTING

    def test_crashes_soon_after_the_start_add_up(self, world: World) -> None:
        world.list(instance("a"))
        for _ in range(FAILURES):
            assert world.state() is not RunState.FAILED
            world.ready()
            world.wait(HEALTHY / 2, talking=True)
            world.end(-11)
            world.wait(PAUSE[1], talking=True)
        assert world.state() is RunState.FAILED

    @pytest.mark.parametrize("code", [2, 3])
    def test_a_configuration_that_will_not_do_is_not_tried_again(
        self, world: World, code: int
    ) -> None:
        world.list(instance("a"), instance("b"))
        world.end(code, last="instance.toml is not TOML")
        assert world.state() is RunState.FAILED
        assert "instance.toml is not TOML" in world.detail()
        assert world.state("b") is RunState.STARTING
        world.wait(10_000)
        assert sum(each.name == "a" for each in world.started) == 1

    def test_a_change_makes_one_that_was_given_up_start_anew(self, world: World) -> None:
        world.list(instance("a"))
        world.end(3)
        world.change(fingerprint="2")
        assert world.state() is RunState.STARTING
        for _ in range(FAILURES - 1):
            world.end(1)
            world.wait(PAUSE[1])
        assert world.state() is RunState.STARTING

    def test_a_change_ends_a_pause(self, running: World) -> None:
        for _ in range(6):
            running.end(1)
            running.wait(PAUSE[1] - 1)
        running.end(1)
        assert running.state() is RunState.WAITING
        running.change(fingerprint="2")
        assert running.state() is RunState.STARTING

    def test_one_that_left_in_good_order_is_started_again_at_once(self, running: World) -> None:
        """As after `instances restart`, which sends SIGTERM to the process."""
        running.wait(BRIEF, talking=True)
        running.end(0)
        assert running.state() is RunState.STARTING
        assert running.restarts() == 1

    def test_one_that_leaves_at_once_again_and_again_is_given_up(self, world: World) -> None:
        world.list(instance("a"))
        for _ in range(FAILURES):
            world.ready()
            world.end(0)
            world.wait(PAUSE[1])
        assert world.state() is RunState.FAILED

    def test_one_that_is_restarted_again_and_again_has_not_failed(self, running: World) -> None:
        """`instances restart` touches the configuration and sends SIGTERM."""
        for number in range(2 * FAILURES):
            running.change(fingerprint=f"restart {number}")
            running.end(0)
            assert running.state() is RunState.STARTING
            running.ready()

    def test_one_that_was_mended_while_it_failed_is_tried_anew(self, world: World) -> None:
        world.list(instance("a"))
        world.change(fingerprint="2")
        world.end(3)
        assert world.state() is RunState.STARTING
        world.end(3)
        assert world.state() is RunState.FAILED


class TestStuck:
    def test_one_that_falls_silent_is_killed_and_started_again(self, running: World) -> None:
        running.wait(SILENCE_LIMIT - 1)
        assert running.process().sent == []
        running.wait(1)
        assert running.process().sent == ["SIGKILL"]
        running.end(-9)
        assert "stuck" in running.detail()
        running.wait(PAUSE[0])
        assert running.state() is RunState.STARTING

    def test_one_that_says_it_is_well_is_left_alone(self, running: World) -> None:
        running.wait(100 * SILENCE_LIMIT, talking=True)
        assert running.process().sent == []

    def test_no_second_one_is_started_before_the_first_is_gone(self, running: World) -> None:
        running.wait(100 * SILENCE_LIMIT)
        assert len(running.started) == 1
        running.change(fingerprint="2")
        running.change(enabled=False)
        running.change(enabled=True)
        assert len(running.started) == 1

    def test_after_its_own_sleep_it_first_hears_what_was_said(self, running: World) -> None:
        running.sleep(100 * SILENCE_LIMIT)
        assert running.process().sent == []
        running.well()
        running.wait(SILENCE_LIMIT - 1)
        assert running.process().sent == []
        running.wait(1)
        assert running.process().sent == ["SIGKILL"]

    def test_short_sleeps_do_not_hide_a_silence_for_ever(self, running: World) -> None:
        for _ in range(int(SILENCE_LIMIT / (OVERSLEPT - 1)) + 1):
            running.sleep(OVERSLEPT - 1)
        assert running.process().sent == ["SIGKILL"]

    def test_a_word_from_a_process_that_is_gone_counts_for_nothing(self, running: World) -> None:
        old = running.process().pid
        running.end(-9)
        running.wait(PAUSE[0])
        running.supervisor.react(Notified("a", old, ready=True))
        assert running.state() is RunState.STARTING
        running.supervisor.react(Ended("a", old, 1))
        assert running.state() is RunState.STARTING


class TestChanging:
    def test_a_changed_configuration_is_read_by_the_running_process(self, running: World) -> None:
        running.change(fingerprint="2")
        assert running.process().sent == ["SIGHUP"]
        running.list(*running.listed.values())
        assert running.process().sent == ["SIGHUP"]

    def test_a_process_that_only_starts_is_told_when_it_can_hear(self, world: World) -> None:
        """Before it has its handlers, SIGHUP would end it."""
        world.list(instance("a"))
        world.change(fingerprint="2")
        assert world.process().sent == []
        world.ready()
        assert world.process().sent == ["SIGHUP"]

    def test_one_that_is_disabled_is_stopped_and_stays_so(self, running: World) -> None:
        running.change(enabled=False)
        assert running.process().sent == ["SIGTERM"]
        assert running.state() is RunState.STOPPING
        running.end(0)
        running.wait(10_000)
        assert running.state() is RunState.STOPPED
        assert len(running.started) == 1

    def test_one_that_does_not_leave_is_killed(self, running: World) -> None:
        running.change(enabled=False)
        running.wait(STOP_LIMIT)
        assert running.process().sent == ["SIGTERM", "SIGKILL"]
        running.wait(10_000)
        assert running.process().sent == ["SIGTERM", "SIGKILL"]
        running.end(-9)
        assert running.state() is RunState.STOPPED

    def test_one_that_is_enabled_again_while_it_leaves_is_started_again(
        self, running: World
    ) -> None:
        running.change(enabled=False)
        running.change(enabled=True)
        assert len(running.started) == 1
        running.end(0)
        assert len(running.started) == 2
        assert running.state() is RunState.STARTING

    def test_one_whose_folder_went_is_stopped_and_forgotten(self, running: World) -> None:
        running.list()
        assert running.process().sent == ["SIGTERM"]
        running.end(0)
        running.list()
        assert running.supervisor.snapshot() == {}

    def test_one_that_waits_or_has_failed_is_forgotten_with_its_folder(self, world: World) -> None:
        world.list(instance("a"), instance("b"), instance("c"))
        world.holders["c"] = 5
        world.end(1, "a")
        world.end(3, "b")
        world.end(4, "c")
        world.list()
        assert world.supervisor.snapshot() == {}
        world.wait(1000)
        assert len(world.started) == 3

    def test_a_failed_one_that_is_disabled_is_stopped(self, world: World) -> None:
        world.list(instance("a"))
        world.end(3)
        world.change(enabled=False)
        assert world.state() is RunState.STOPPED


class TestLeaving:
    def test_all_are_told_and_waited_for(self, world: World) -> None:
        world.list(instance("a"), instance("b"))
        world.ready("a")
        world.leave()
        assert [each.sent for each in world.started] == [["SIGTERM"], ["SIGTERM"]]
        world.end(0, "a")
        assert not world.supervisor.finished
        world.end(-15, "b")
        assert world.supervisor.finished

    def test_said_twice_all_are_killed(self, running: World) -> None:
        running.leave()
        running.leave()
        assert running.process().sent == ["SIGTERM", "SIGKILL"]

    def test_nothing_is_started_any_more(self, running: World) -> None:
        running.leave()
        running.list(instance("a", "2"), instance("b"))
        running.end(1)
        running.wait(1000)
        assert len(running.started) == 1
        assert running.supervisor.finished

    def test_with_nothing_running_it_is_finished_at_once(self, world: World) -> None:
        world.list(instance("a"), instance("b", enabled=False))
        world.end(3)
        world.leave()
        assert world.supervisor.finished


def test_every_stage_reacts_to_what_concerns_it() -> None:
    """The table as a whole: who can be stopped, and who waits for something."""
    gone_elsewhere = {Stage.IDLE, Stage.STOPPING, Stage.KILLED}
    stoppable = {stage for stage in Stage if (stage, Event.UNWANTED) in TABLE}
    assert stoppable == set(Stage) - gone_elsewhere
    waiting = {stage for stage in Stage if (stage, Event.DUE) in TABLE}
    assert waiting == set(Stage) - {Stage.IDLE, Stage.KILLED, Stage.FAILED}


def test_due_is_when_something_is_to_be_done(world: World) -> None:
    assert world.supervisor.due() is None
    world.list(instance("a"))
    assert world.supervisor.due() == world.now + START_LIMIT
    world.end(1)
    assert world.supervisor.due() == world.now + PAUSE[0]


@pytest.mark.parametrize("act", [World.leave, lambda world: world.list()])
def test_a_killed_one_that_is_not_wanted_any_more_is_let_go(
    running: World, act: Callable[[World], None]
) -> None:
    running.wait(SILENCE_LIMIT)
    act(running)
    running.end(-9)
    running.wait(1000)
    assert len(running.started) == 1
