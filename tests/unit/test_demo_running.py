"""A running demo: packets when their times come, processes looked after, the end asked for."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import pytest

from dataserver.config.timezone import zone_named
from dataserver.demo.children import Child, Children, ShutdownSignal
from dataserver.demo.filling import senders
from dataserver.demo.home import DemoHome, open_demo
from dataserver.demo.running import Running, port_is_free
from dataserver.demo.uploading import Uploader
from dataserver.errors import NotRunning
from tests.support.waiting import PATIENCE, wait_until

END = 1_795_186_800
UTC = zone_named("UTC")


@pytest.fixture
def demo(tmp_path: Path) -> DemoHome:
    demo = open_demo(tmp_path / "home", END, days=1, agents=10, seed=1)
    demo.advance(END)
    return demo


class Watch:
    """A clock that goes on by so much at each look, and asks for the end after the last one."""

    def __init__(self, ending: ShutdownSignal, *times: float) -> None:
        self._times = list(times)
        self._ending = ending

    def __call__(self) -> float:
        now = self._times.pop(0)
        if not self._times:
            os.kill(os.getpid(), signal.SIGTERM)
        return now


def send(demo: DemoHome, *times: float) -> None:
    with ShutdownSignal() as ending, Children(lambda: True) as children:
        clock = Watch(ending, *times)
        running = Running(demo, children, ending, {}, clock=clock)
        ending.wait = lambda _: ending.is_requested  # type: ignore[method-assign]
        uploader = Uploader(demo.data_in, demo.var / "spare")
        running.keep_sending(senders(demo.state, UTC), uploader)


def test_each_packet_is_sent_once_when_its_time_comes(demo: DemoHome) -> None:
    send(demo, END + 10.2, END + 10.9, END + 31, END + 700, END + 601)
    names = os.listdir(demo.data_in)
    wanted = {
        f"{sender.agent.name}.{when}.data"
        for sender in senders(demo.state, UTC)
        for when in sender.agent.times(END, END + 700)
    }
    assert set(names) == wanted
    assert not [name for name in names if name.startswith("erp-old")]


def test_how_far_it_is_is_remembered(demo: DemoHome) -> None:
    send(demo, END + 5, END + 42)
    again = open_demo(demo.home.root, END, days=None, agents=None, seed=None)
    assert again.state.until == END + 42


def test_a_clock_that_is_set_back_sends_nothing_twice(demo: DemoHome) -> None:
    send(demo, END + 400, END - 5_000, END + 100)
    assert demo.state.until == END + 400


def test_a_taken_port_is_not_free() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert not port_is_free("127.0.0.1", taken.getsockname()[1])
        port = taken.getsockname()[1]
    assert port_is_free("127.0.0.1", port)


def child(tmp_path: Path, *arguments: str) -> Child:
    return Child("test", arguments, tmp_path / "log", os.environ)


def test_a_child_that_ended_is_told_with_its_last_line(tmp_path: Path) -> None:
    with Children(lambda: False) as children:
        one = children.add(child(tmp_path, "--home", str(tmp_path / "none"), "status"))
        wait_until(lambda: one.ended, "its end")
        with pytest.raises(
            NotRunning, match=r"`dataserver test` ended \(exit code 2\): .*not a dataserver home"
        ):
            children.check()


def test_a_log_of_any_bytes_has_a_last_line(tmp_path: Path) -> None:
    one = child(tmp_path, "--version")
    wait_until(lambda: one.ended, "its end")
    (tmp_path / "log").write_bytes(b"x" * 100_000 + b"\n\xff\xfe word\n\n  \n")
    assert one.last_line() == "\ufffd\ufffd word"
    (tmp_path / "log").write_bytes(b"")
    assert one.last_line() == ""


def test_signals_ask_for_the_end_and_mean_what_they_did_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ShutdownSignal() as ending:
        assert not ending.wait(0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert ending.wait(PATIENCE)
        assert not ending.is_urgent
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: ending.is_urgent, "the second signal")
    assert signal.getsignal(signal.SIGTERM) is before


def test_addresses_are_read_whole() -> None:
    from dataserver.demo import running

    pattern: re.Pattern[str] = running._ADDRESS
    assert pattern.search("console: http://127.0.0.1:80") is None
    found = pattern.search("x\nconsole: http://[::1]:8081/ (read-only)\n")
    assert found is not None
    assert found[1] == "http://[::1]:8081/"
