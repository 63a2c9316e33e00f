"""What makes an instance, and so its host, healthy: the rules apart from looking."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from dataserver.runtime.heartbeat import Beat, Phase
from dataserver.vrrp import health, status
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
from tests.support.waiting import wait_until

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


def test_a_clock_that_is_behind_is_told_and_no_sickness() -> None:
    health = judge(replace(WELL, clock="3 of 4 agents are ahead"), LIMITS)
    assert health.verdict is Verdict.HEALTHY
    assert texts(health) == ["this host's clock seems behind: 3 of 4 agents are ahead"]


def test_waiting_for_the_database_is_told_and_no_sickness() -> None:
    beat = replace(BEAT, phase=Phase.WAITING_FOR_DATABASE, loop_seconds=10_000.0)
    health = judge(replace(WELL, beat=beat), LIMITS)
    assert health.reasons == (Reason(Verdict.WAITING, "waiting for the database"),)
    facts = replace(WELL, beat=beat, database_error="cannot connect")
    assert texts(judge(facts, LIMITS)) == ["waiting for the database: cannot connect"]


def test_a_folder_is_low_below_one_limit_and_until_above_the_other() -> None:
    #: By the percentage that is free, and whether it was low before.
    sick = {
        (4, False): True,
        (5, False): False,
        (10, False): False,
        (4, True): True,
        (5, True): True,
        (10, True): True,
        (11, True): False,
    }
    found = {}
    for percent, was_low in sick:
        facts = replace(WELL, rooms=(Room("var", percent),))
        low = {"main:var"} if was_low else {"main:data_in", "other:var"}
        found[percent, was_low] = judge(facts, LIMITS, low).verdict is Verdict.SICK
    assert found == sick


def test_a_result_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "health").write_text(
        "result=sick\nuptime=12.50\nlow=main:var second:data_in\ntext=main: a=b\n"
    )
    result = read_result("check-health", tmp_path)
    assert result is not None
    assert (result.result, result.uptime, result.text) == ("sick", 12.5, "main: a=b")
    assert result.low == {"main:var", "second:data_in"}


def test_what_is_no_result_is_none(tmp_path: Path) -> None:
    assert read_result("check-health", tmp_path) is None
    for text in ("", "result=sick\n", "result=\nuptime=x\ntext=\n", "\0\n"):
        (tmp_path / "drop").write_text(text)
        assert read_result("check-drop", tmp_path) is None, text


def test_a_result_of_no_time_is_none(tmp_path: Path) -> None:
    for seen in ("nan", "inf", "-inf", "-1", "1e12", "9" * 400):
        (tmp_path / "drop").write_text(f"result=takes\nuptime={seen}\ntext=\n")
        assert read_result("check-drop", tmp_path) is None, seen


def test_a_result_that_the_check_never_has_is_none(tmp_path: Path) -> None:
    for result in ("", "well", "fault", "healthy\x1b[31m"):
        (tmp_path / "health").write_text(f"result={result}\nuptime=1\ntext=\n")
        assert read_result("check-health", tmp_path) is None, result


def test_a_state_since_no_time_is_none(tmp_path: Path) -> None:
    for since in ("-1", "99999999999999999999", "9" * 400, "9" * 5000, "nan"):
        (tmp_path / "state").write_text(f"state=MASTER\nsince={since}\npriority=1\n")
        assert read_state(tmp_path / "state") is None, since


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


def test_what_is_no_file_says_nothing_and_holds_nobody_up(tmp_path: Path) -> None:
    for number, make in enumerate((_pipe, _link, _socket, Path.mkdir)):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        make(folder / "health")
        assert read_result("check-health", folder) is None, make
        assert read_state(folder / "health") is None, make


def test_a_check_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10_000.0
    monkeypatch.setattr(health, "uptime", lambda: now)
    pair = parse(SIMPLE, "pair.toml")
    known = status.LastNotified("BACKUP", 1.0, 200)
    well = Checked("takes", now, "", frozenset())
    # Three times `interval` and `timeout`.
    longest = 18.0
    found = {}
    for age in (-5000.0, longest, 30.0):
        checked = Checked("healthy", now - age, "", frozenset())
        standing = status.HostStatus(pair, pair.hosts[0], (), 1, known, True, checked, well)
        found[age] = [re.split("[:;]", problem)[0] for problem in standing.problems()]
    assert found == {
        -5000.0: ["check-health has never run"],
        longest: [],
        30.0: ["check-health has not finished for 30 s"],
    }


def test_a_zombie_of_keepalived_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, pid_file = tmp_path / "keepalived", tmp_path / "pid"
    shutil.copy(shutil.which("sleep") or "", program)
    monkeypatch.setattr(status, "_PID_FILES", (pid_file,))
    with subprocess.Popen(["setpriv", "--pdeathsig", "KILL", program, "1000"]) as process:
        try:
            pid_file.write_text(f"{process.pid}\n")
            wait_until(lambda: status._keepalived() == process.pid, "its name")
        finally:
            process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{process.pid}/comm").read_text() == "keepalived\n"
        assert status._keepalived() is None
