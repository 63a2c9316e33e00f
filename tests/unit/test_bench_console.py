"""The benchmark of the console: what it asks and counts, and that it believes no wrong answer."""

from __future__ import annotations

import http.server
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import pytest

from bench import __main__, console_fill, console_load
from bench.console import Bench, opened
from bench.console_beside import Size
from bench.console_load import (
    MIX,
    NO_ANSWER,
    Answer,
    Ask,
    Latency,
    Load,
    latency,
    percentile,
    plan,
)
from bench.console_report import Loaded, Opened, as_json, is_whole, tables
from bench.console_server import Console
from bench.errors import BenchError
from bench.generator import START
from bench.server import installed
from bench.workloads import TEN, Workload
from dataserver.rules.status import Status
from tests.support.waiting import PATIENCE, wait_until

TINY = Size(
    points=3_000,
    agents=150,
    runs=2,
    pairs=2,
    rate=10.0,
    workload=Workload("w1", "some agents", 20, TEN, 2),
)

#: A console that knows no page.
NO_PAGES = """
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
    print(f"http://127.0.0.1:{server.server_address[1]}/", flush=True)
    server.serve_forever()
"""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is late on a slow machine is not what fails here."""
    monkeypatch.setattr(console_load, "PATIENCE", PATIENCE)


def answer(seconds: float, code: int = 200, kind: str = "agents") -> Answer:
    return Answer(kind, 0.0, seconds, code)


def loaded(pairs: list[tuple[float, float]], *answers: Answer, retries: int = 0) -> Loaded:
    return Loaded("sqlite", "load", tuple(pairs), answers, retries, 0)


# -- sums ------------------------------------------------------------------------------------


def test_a_percentile_is_a_value_that_was_measured() -> None:
    expected = {50: 5, 95: 10, 99: 10, 10: 1, 11: 2}
    values = [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert {percent: percentile(values, percent) for percent in expected} == expected


def test_what_was_not_answered_has_no_latency() -> None:
    answers = [answer(1.0), answer(2.0), answer(3.0), answer(99.0, NO_ANSWER)]
    assert latency(answers) == Latency(2.0, 3.0, 3.0)


def test_the_cost_is_the_median_of_the_pairs() -> None:
    result = loaded([(1_000, 900), (1_000, 950), (500, 250)])
    assert result.cost == pytest.approx(0.1)


def test_a_lost_answer_a_bad_one_and_a_conflict_are_not_clean() -> None:
    assert loaded([(1, 1)], answer(1.0)).is_clean
    assert loaded([(1, 1)], answer(1.0, 503), answer(1.0, NO_ANSWER)).errors == 2
    assert not loaded([(1, 1)], answer(1.0, 503)).is_clean
    assert not loaded([(1, 1)], answer(1.0), retries=1).is_clean


def test_a_part_that_is_missing_or_not_clean_is_told_by_the_exit_code() -> None:
    page = Opened("agents", "agents", "sqlite", (0.1,), 5)
    beside = loaded([(1, 1)], answer(1.0))
    assert is_whole([page, beside], ["sqlite"], ["agents", "load"])
    assert not is_whole([page], ["sqlite"], ["agents", "load"])
    assert not is_whole([page, beside], ["sqlite", "mariadb"], ["agents", "load"])
    assert not is_whole([page, loaded([(1, 1)], answer(1.0, 500))], ["sqlite"], ["agents", "load"])


def test_tables_show_milliseconds_and_shares() -> None:
    page = Opened("agents", "agents", "sqlite", (0.010, 0.020, 0.300), 36_000)
    shown = tables([page, loaded([(1_000, 950)], answer(0.012), answer(0.5, 500, "graph"))])
    lines = [line.split() for line in shown.splitlines()]
    assert ["agents", "sqlite", "3", "20", "300", "300", "36"] in lines
    assert lines[4][2:] == [
        "1,000",
        "950",
        "5.0%",
        "<",
        "10%",
        "2",
        "12",
        "500",
        "500",
        "1",
        "0",
        "0",
    ]
    assert ["graph", "sqlite", "1", "500", "500", "500"] in lines


def test_all_figures_go_into_the_json() -> None:
    page = Opened("agents", "agents", "sqlite", (0.01, 0.02), 36_000)
    shown = as_json([page, loaded([(1_000, 950)], answer(0.5), answer(0.1, 500))])
    assert shown[0]["seconds"] == (0.01, 0.02)
    assert shown[1]["codes"] == {"200": 1, "500": 1}


# -- requests --------------------------------------------------------------------------------


def asks(count: int, rate: float = 50.0, seed: int = 1) -> list[Ask]:
    paths = plan(rate, 2, lambda kind, random: f"/{kind}/{random.randint(1, 9)}", seed)
    return list(islice(paths, count))


def test_requests_are_due_at_a_steady_rate_and_go_to_the_consoles_in_turns() -> None:
    found = asks(100, rate=50.0)
    assert [ask.due for ask in found] == [number / 50 for number in range(100)]
    assert [ask.console for ask in found[:4]] == [0, 1, 0, 1]


def test_kinds_are_mixed_as_said_and_the_same_every_time() -> None:
    found = asks(100)
    assert Counter(ask.kind for ask in found) == {kind: count * 5 for kind, count in MIX.items()}
    assert found == asks(100)
    assert found != asks(100, seed=2)


class _Server(http.server.ThreadingHTTPServer):
    """Connections may come all at once."""

    request_queue_size = 100


class _Handler(http.server.BaseHTTPRequestHandler):
    """Holds its answers back until it is told; ``/bad`` is an error."""

    protocol_version = "HTTP/1.1"
    held = threading.Event()
    #: The paths that were asked for.
    asked: list[str] = []  # noqa: RUF012 - there is one server, and each request has a handler

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.held.wait(PATIENCE)
        self.send_response(500 if self.path == "/bad" else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    _Handler.held.clear()
    _Handler.asked.clear()
    with _Server(("127.0.0.1", 0), _Handler) as server:
        # Seconds between two looks at whether it is to end.
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        _Handler.held.set()
        server.shutdown()
        thread.join()


def test_requests_are_sent_though_earlier_ones_were_not_answered(port: int) -> None:
    started = time.monotonic()
    planned = [Ask(0.0, 0, "agents", "/good"), Ask(0.0, 0, "agents", "/bad")] * 5
    with Load(iter(planned), [port]) as load:
        wait_until(lambda: len(_Handler.asked) == 10, "all requests, of which none is answered")
        held = time.monotonic()
        _Handler.held.set()
    answers = load.answers(started, held)
    assert Counter(each.code for each in answers) == {200: 5, 500: 5}
    # What a request waited for counts, from when it was due.
    assert all(each.seconds >= held - each.due for each in answers)


def test_a_console_that_is_not_there_is_counted_as_no_answer(port: int) -> None:
    _Handler.held.set()
    all_sent = threading.Event()

    def planned() -> Iterator[Ask]:
        yield Ask(0.0, 0, "agents", "/")
        yield Ask(0.0, 1, "agents", "/")
        all_sent.set()

    started = time.monotonic()
    with Load(planned(), [port, 1]) as load:
        assert all_sent.wait(PATIENCE)
    codes = Counter(each.code for each in load.answers(started, time.monotonic()))
    assert codes == {200: 1, NO_ANSWER: 1}


def test_a_plan_without_an_end_ends_with_the_block(port: int) -> None:
    _Handler.held.set()
    with Load(plan(10.0, 1, lambda kind, _: f"/{kind}"), [port]):
        wait_until(lambda: len(_Handler.asked) >= 2, "some requests")
    assert not [thread for thread in threading.enumerate() if thread.name == "load"]


# -- what a database is filled with -----------------------------------------------------------


def test_a_history_is_a_change_a_minute_up_to_the_start() -> None:
    rows = list(console_fill._points(7, 5_000))
    assert [row["time"] for row in rows] == list(range(START - 5_000 * 60, START, 60))
    assert all(one["value"] != other["value"] for one, other in pairwise(rows))
    assert all(0 <= row["value"] <= 100 for row in rows)


def test_the_ledger_has_a_packet_for_each_value_once_as_itself_or_in_its_hour() -> None:
    points = 20 * 24 * 60
    packets = list(console_fill._packets(3, points))
    hours = list(console_fill._hours(3, points))
    assert len(packets) + sum(row["packets"] for row in hours) == points
    assert min(row["time"] for row in packets) >= max(row["hour"] for row in hours) + 3_600
    assert len({row["digest"] for row in packets}) == len(packets)


def test_agents_counts_are_those_of_their_modules_states() -> None:
    states: dict[int, Counter[int]] = {}
    for row in console_fill._states(3_000):
        states.setdefault(row["agent_id"], Counter())[row["status"]] += 1
    for row in console_fill._agents(3_000, [2, 5]):
        counted = states[row["id"]]
        for status in (Status.NORMAL, Status.CRITICAL, Status.WARNING, Status.UNKNOWN):
            assert row[f"{status.name.lower()}_count"] == counted[status]
        assert row["total_count"] == counted.total() == len(TEN)
    worst = Counter(map(console_fill.worst, range(1, 3_001)))
    assert worst == {0: 2_700, 1: 60, 2: 150, 3: 90}


# -- the whole of it, in small -----------------------------------------------------------------


@pytest.mark.long
def test_every_part_is_measured_with_a_real_console(tmp_path: Path) -> None:
    with opened("sqlite", tmp_path) as store:
        bench = Bench(installed(), store, tmp_path, lambda _: None, TINY)
        year, week, *pages = [*bench.measure("year"), *bench.measure("agents")]
        (beside,) = bench.measure("load")
    for page in (year, week, *pages):
        assert isinstance(page, Opened)
        assert len(page.seconds) == TINY.runs
        assert page.size > 1_000
    assert isinstance(beside, Loaded)
    assert len(beside.pairs) == TINY.pairs
    assert beside.answers
    assert beside.is_clean
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_is_none_is_an_error_and_no_figure(tmp_path: Path) -> None:
    command = [sys.executable, "-c", NO_PAGES]
    with Console(command, tmp_path / "home", "sqlite:////x") as console:
        with pytest.raises(BenchError, match="/modules/7 gave 404"):
            console.times("/modules/7", 1)
        process = console._process
    assert process.poll() is not None


def test_a_console_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    script = tmp_path / "server"
    script.write_text("#!/bin/sh\necho no console today\nexit 3\n")
    script.chmod(0o755)
    with (
        pytest.raises(BenchError, match="no console today"),
        Console([str(script)], tmp_path / "home", "sqlite:////x"),
    ):
        pass


def test_what_cannot_be_measured_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for option, given in (("--parts", "year,x"), ("--stores", "oracle")):
        monkeypatch.setattr(sys, "argv", ["bench", "console", option, given])
        with pytest.raises(SystemExit, match="2"):
            __main__.main()
        said = capsys.readouterr().err.splitlines()
        assert "there are" in said[-1], option
