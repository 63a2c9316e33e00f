"""Log messages: JSON lines, terminal lines, no secrets, nothing that moves a cursor."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from dataserver.cli.live import LiveLine, LiveLineHandler, line
from dataserver.logs import NAME, JsonLines, TerminalLines, printable, set_up, terminal_line
from dataserver.runtime.heartbeat import Status
from dataserver.runtime.metrics import Counters, Gauges, as_dict

LOGGER = logging.getLogger(f"{NAME}.test")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    logger = logging.getLogger(NAME)
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def to_json(stream: io.StringIO) -> None:
    set_up("info", logging.StreamHandler(stream), JsonLines({"instance": "main"}))


def status(**changes: object) -> Status:
    counters, gauges = Counters(), Gauges()
    counters.packets, counters.samples, counters.stored = 1000, 10000, 4000
    gauges.queue, gauges.oldest_age_seconds = 12, 3.4
    fields: dict[str, object] = {
        "instance": "main",
        "server_name": "s",
        "version": "1",
        "pid": 1,
        "run": "r",
        "started": 1.0,
        "written": 2.0,
        "phase": "storing",
        "data_in": "/d",
        "database": "sqlite:///x",
        "packets_per_second": 99.6,
        "values_per_second": 996.0,
        "counters": as_dict(counters),
        "gauges": as_dict(gauges),
    }
    return Status(**{**fields, **changes})


def test_a_message_is_one_json_object_on_one_line(stream: io.StringIO) -> None:
    to_json(stream)
    LOGGER.warning("set %s\naside", "it", extra={"reason": "clock"})
    written = stream.getvalue()
    assert written.count("\n") == 1
    fields = json.loads(written)
    assert fields["message"] == "set it\naside"
    assert fields["level"] == "warning"
    assert fields["instance"] == "main"
    assert fields["reason"] == "clock"
    assert fields["time"].endswith("Z")


def test_messages_below_the_level_are_not_written(stream: io.StringIO) -> None:
    to_json(stream)
    LOGGER.debug("no")
    assert stream.getvalue() == ""


def test_a_second_set_up_replaces_the_first(stream: io.StringIO) -> None:
    to_json(stream)
    to_json(stream)
    LOGGER.info("once")
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("formatter", [JsonLines({}), TerminalLines()])
def test_a_password_in_a_url_is_never_logged(
    stream: io.StringIO, formatter: logging.Formatter
) -> None:
    set_up("info", logging.StreamHandler(stream), formatter)
    try:
        raise ValueError("mysql://u:hush@h/n")
    except ValueError:
        LOGGER.exception("away: mysql://u:hush@h/n", extra={"url": "mysql://u:hush@h/n"})
    assert "u:***@h" in stream.getvalue()
    assert "hush" not in stream.getvalue()


def test_a_terminal_never_gets_control_characters_of_a_packet(stream: io.StringIO) -> None:
    set_up("info", logging.StreamHandler(stream), TerminalLines())
    LOGGER.info("agent %s", "\x1b[2Jx\r", extra={"file": "\x9b1m"})
    assert stream.getvalue().rstrip("\n").isprintable()


def test_a_terminal_line_leaves_out_what_there_is_not(stream: io.StringIO) -> None:
    set_up("info", logging.StreamHandler(stream), TerminalLines())
    LOGGER.info("set aside", extra={"file": "x.1.data", "agent": None})
    assert stream.getvalue().endswith("set aside (file=x.1.data)\n")


def test_printable_text_stays_as_it_is() -> None:
    assert printable("Zürich 日本 ✓") == "Zürich 日本 ✓"
    assert printable("a\nb\udcff") == r"a\nb\udcff"


def test_the_live_line_tells_packets_values_share_queue_and_oldest() -> None:
    assert line(status(), 200).split(" | ") == [
        "storing",
        "1000 packets (100/s)",
        "10000 values (996/s)",
        "40 % stored",
        "queue 12",
        "oldest 3 s",
    ]


def test_the_live_line_says_why_it_waits() -> None:
    waiting = status(phase="waiting for database", database_error="connection refused")
    assert line(waiting, 200).endswith("connection refused")


def test_the_live_line_is_never_wider_than_the_terminal(stream: io.StringIO) -> None:
    LiveLine(stream, 40).update(status())
    assert len(stream.getvalue().removeprefix("\r\x1b[2K")) == 39


def test_a_message_goes_above_the_live_line(stream: io.StringIO) -> None:
    live = LiveLine(stream, 200)
    live.update(status())
    set_up("info", LiveLineHandler(live), TerminalLines())
    LOGGER.info("hello")
    last = stream.getvalue().rpartition("\r\x1b[2K")[2]
    message, _, below = last.partition("\n")
    assert message.endswith("info: hello")
    assert below == line(status(), 199)


def test_a_line_that_is_none_of_ours_is_retold_as_it_is() -> None:
    times = ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "noon")
    texts = [
        *("[" * 100_000, '{"time":' * 5000),
        *(json.dumps({"time": time, "level": "info", "message": "\x1b[2J"}) for time in times),
    ]
    changed = [
        each[:80] for each in texts if terminal_line(each, "beta ") != printable(f"beta {each}")
    ]
    assert changed == []
