"""What makes an instance, and so its host, healthy: the rules apart from looking."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep

import pytest

from dataserver.health import Beat, Phase, uptime
from dataserver.vrrp import status
from dataserver.vrrp.health import (
    Checked,
    Facts,
    Health,
    Limits,
    Reason,
    Room,
    Verdict,
    judge,
    read_result,
    worst,
)
from dataserver.vrrp.reading import parse
from dataserver.vrrp.status import read_state
from tests.support.pairs import SIMPLE
from tests.support.server import PATIENCE

LIMITS = Limits(warn=5, ok=10)
BEAT = Beat(
    pid=42,
    process_start=1000,
    run="r",
    phase=Phase.IDLE,
    phase_since=1.0,
    phase_seconds=1.0,
    beat=1,
    loop_seconds=0.5,
    time=1.0,
    uptime=500.0,
)
WELL = Facts(
    name="main",
    beat=BEAT,
    started=1000,
    uptime=501.0,
    rooms=(Room("data_in", 50), Room("var", 50)),
)


def texts(health: Health) -> list[str]:
    return [reason.text for reason in health.reasons]


def test_one_of_which_all_is_well_has_no_reasons() -> None:
    assert judge(WELL, LIMITS) == Health("main")
    assert judge(WELL, LIMITS).verdict is Verdict.HEALTHY


def test_all_reasons_are_told_and_the_worst_counts() -> None:
    facts = replace(
        WELL, started=None, rooms=(Room("data_in", 4), Room("var", None)), drop_error="No space"
    )
    health = judge(facts, LIMITS)
    assert health.verdict is Verdict.FAULT
    assert texts(health) == [
        "data_in takes no files: No space",
        "dead: process 42 is gone",
        "data_in is nearly full: 4 % free",
        "var: cannot tell how full it is",
    ]
    assert worst(reason.verdict for reason in health.reasons[1:]) is Verdict.SICK


def test_waiting_for_the_database_is_told_and_no_sickness() -> None:
    beat = replace(BEAT, phase=Phase.WAITING_FOR_DATABASE, loop_seconds=10_000.0)
    health = judge(replace(WELL, beat=beat), LIMITS)
    assert health.reasons == (Reason(Verdict.WAITING, "waiting for the database"),)


@pytest.mark.parametrize(
    ("percent", "was_low", "sick"),
    [
        (4, False, True),
        (5, False, False),
        (10, False, False),
        (4, True, True),
        (5, True, True),
        (10, True, True),
        (11, True, False),
    ],
)
def test_a_folder_is_low_below_one_limit_and_until_above_the_other(
    percent: int, was_low: bool, sick: bool
) -> None:
    facts = replace(WELL, rooms=(Room("var", percent),))
    low = {"main:var"} if was_low else {"main:data_in", "other:var"}
    assert (judge(facts, LIMITS, low).verdict is Verdict.SICK) is sick


def test_a_result_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "health").write_text(
        "result=sick\nuptime=12.50\nlow=main:var second:data_in\ntext=main: a=b\n"
    )
    result = read_result("check-health", tmp_path)
    assert result is not None
    assert (result.result, result.uptime, result.text) == ("sick", 12.5, "main: a=b")
    assert result.low == {"main:var", "second:data_in"}


@pytest.mark.parametrize("text", ["", "result=sick\n", "result=\nuptime=x\ntext=\n", "\0\n"])
def test_what_is_no_result_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "drop").write_text(text)
    assert read_result("check-drop", tmp_path) is None
    assert read_result("check-health", tmp_path) is None


@pytest.mark.parametrize("seen", ["nan", "inf", "-inf", "-1", "1e12", "9" * 400])
def test_a_result_of_no_time_is_none(tmp_path: Path, seen: str) -> None:
    (tmp_path / "drop").write_text(f"result=takes\nuptime={seen}\ntext=\n")
    assert read_result("check-drop", tmp_path) is None


@pytest.mark.parametrize("result", ["", "well", "fault", "healthy\x1b[31m"])
def test_a_result_that_the_check_never_has_is_none(tmp_path: Path, result: str) -> None:
    (tmp_path / "health").write_text(f"result={result}\nuptime=1\ntext=\n")
    assert read_result("check-health", tmp_path) is None


@pytest.mark.parametrize("since", ["-1", "99999999999999999999", "9" * 400, "9" * 5000, "nan"])
def test_a_state_since_no_time_is_none(tmp_path: Path, since: str) -> None:
    (tmp_path / "state").write_text(f"state=MASTER\nsince={since}\npriority=1\n")
    assert read_state(tmp_path / "state") is None


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.with_name("elsewhere").write_text(
        "state=MASTER\nsince=1\npriority=1\nresult=healthy\nuptime=1\ntext=\n"
    )
    path.symlink_to("elsewhere")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(path))


@pytest.mark.parametrize("make", [_pipe, _link, _socket, Path.mkdir])
def test_what_is_no_file_says_nothing_and_holds_nobody_up(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "health")
    assert read_result("check-health", tmp_path) is None
    assert read_state(tmp_path / "health") is None


@pytest.mark.parametrize(
    ("age", "says"),
    [
        (-5000, "check-health has never run"),
        (10, None),
        (30, "check-health has not come to an end for 3"),
    ],
)
def test_a_check_that_hangs_is_told(age: float, says: str | None) -> None:
    # The 18 s are three times `interval` and `timeout`.
    now = uptime()
    assert now is not None
    pair = parse(SIMPLE, "pair.toml")
    known = status.Known("BACKUP", 1.0, 200)
    checked = Checked("healthy", now - age, "", frozenset())
    well = Checked("takes", now, "", frozenset())
    standing = status.Standing(pair, pair.hosts[0], (), 1, known, True, checked, well)
    problems = list(standing.problems())
    assert [each[: len(says)] for each in problems if says] == ([says] if says else [])
    assert len(problems) == bool(says)


def test_a_zombie_of_keepalived_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, pid_file = tmp_path / "keepalived", tmp_path / "pid"
    shutil.copy(shutil.which("sleep") or "", program)
    monkeypatch.setattr(status, "_PID_FILES", (pid_file,))
    with subprocess.Popen(["setpriv", "--pdeathsig", "KILL", program, "1000"]) as process:
        try:
            pid_file.write_text(f"{process.pid}\n")
            limit = monotonic() + PATIENCE
            while status._keepalived() != process.pid:
                assert monotonic() < limit
                sleep(0.005)
        finally:
            process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{process.pid}/comm").read_text() == "keepalived\n"
        assert status._keepalived() is None
