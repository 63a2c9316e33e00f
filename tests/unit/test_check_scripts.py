"""keepalived's two checks against the Python that says the same, over states of all kinds."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from dataserver.config.paths import Home
from dataserver.runtime.heartbeat import STALE_AFTER, Beat, Heartbeat, Phase, process_start, uptime
from dataserver.vrrp.health import STOPPED_GRACE, Limits, Verdict, gather, judge
from tests.support.checks import SCRIPTS, SHELLS, Checks
from tests.support.disk import ROOT, mounted
from tests.support.waiting import wait_until

NOBODY = 65534
MIB = 1 << 20
#: Seconds since the machine was started, here and for the scripts: time stands still.
UPTIME = 10_000.0

Process = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def process() -> Iterator[Process]:
    """Makes processes that do nothing and die with the test."""
    made = []

    def make() -> subprocess.Popen[bytes]:
        made.append(subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "sleep", "1000"]))
        return made[-1]

    yield make
    for each in made:
        each.kill()
        each.wait()


@pytest.fixture(autouse=True)
def time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("dataserver.runtime.heartbeat", "dataserver.vrrp.health"):
        monkeypatch.setattr(f"{module}.uptime", lambda: UPTIME)


def made(root: Path, *names: str, **options: Any) -> Checks:
    return Checks(Home(root), names or ("main",), uptime=UPTIME, **options)


@pytest.fixture
def checks(tmp_path: Path) -> Checks:
    return made(tmp_path)


def beat(pid: int | None = None, **changes: object) -> Beat:
    """One of a healthy instance, written now, with changes; ``age`` is how old it is."""
    pid = os.getpid() if pid is None else pid
    age = changes.pop("age", 0.0)
    assert isinstance(age, float | int)
    whole = Beat(
        pid=pid,
        process_start=process_start(pid),
        run="0123abcd",
        phase=Phase.IDLE,
        phase_since=1000.0,
        phase_seconds=3.25,
        beat=7,
        loop_seconds=0.5,
        time=1000.0,
        uptime=round(UPTIME - age, 3),
    )
    return replace(whole, **changes)


def write(checks: Checks, what: Beat | str | None, name: str = "main") -> None:
    """Put a heartbeat where the instance would."""
    path = checks.paths(name).heartbeat
    if what is None:
        path.unlink(missing_ok=True)
    else:
        path.write_text(what if isinstance(what, str) else json.dumps(asdict(what)) + "\n")


def parts(text: str) -> set[str]:
    """The reasons of a line."""
    return set(filter(None, text.strip().split("; ")))


def python(checks: Checks, name: str = "main") -> tuple[Verdict, set[str]]:
    """What Python says apart from faults of the drop directory, which are check-drop's."""
    checked = checks.result()
    facts = replace(gather(checks.paths(name), checks.data_in(name)), drop_error=None)
    health = judge(facts, checks.limits, checked.low if checked else ())
    return health.verdict, parts("; ".join(f"{name}: {reason.text}" for reason in health.reasons))


def agree(checks: Checks) -> tuple[Verdict, str]:
    """What all the shells and Python say of main; they say the same."""
    texts = []
    for shell in SHELLS:
        before = python(checks)
        done = checks.run("check-health", shell)
        verdict, reasons = before
        assert done.stderr == "", shell
        assert parts(done.stdout) == reasons, shell
        assert done.stdout.count("\n") == bool(reasons), shell
        assert done.returncode == (verdict is Verdict.SICK), shell
        left = checks.result()
        assert left is not None
        assert left.result == {Verdict.WAITING: "waiting"}.get(verdict, verdict.value)
        assert parts(left.text) == reasons
        assert left.uptime == UPTIME
        texts.append(done.stdout.strip())
    return before[0], texts[0]


# -- processes and heartbeats ---------------------------------------------------------


def test_one_that_moves_is_healthy_in_every_phase(checks: Checks) -> None:
    found = {}
    for phase in Phase:
        write(checks, beat(phase=phase))
        found[phase] = agree(checks)
    assert found.pop(Phase.WAITING_FOR_DATABASE) == (
        Verdict.WAITING,
        "main: waiting for the database",
    )
    # One that has just stopped is perhaps being restarted.
    assert set(found.values()) == {(Verdict.HEALTHY, "")}
    assert len(found) == len(Phase) - 1


def test_the_scripts_read_the_machines_own_clock(tmp_path: Path) -> None:
    checks = Checks(Home(tmp_path))
    for script in SCRIPTS:
        began = uptime()
        checks.run(script)
        left, ended = checks.result(script), uptime()
        assert left is not None
        assert began is not None
        assert ended is not None
        assert began <= left.uptime <= ended


def test_what_a_real_instance_writes_is_understood(checks: Checks) -> None:
    heart = Heartbeat(checks.paths().heartbeat, "r")
    heart.start()
    try:
        assert agree(checks) == (Verdict.HEALTHY, "")
        heart.enter(Phase.WAITING_FOR_DATABASE)
        heart._write()
        assert agree(checks)[0] is Verdict.WAITING
    finally:
        heart.stop()
    assert agree(checks) == (Verdict.HEALTHY, ""), "it just stopped: perhaps a restart"


NO_SUCH_PROCESS = 2**22 + 1
#: A heartbeat, and what it is a sign of.
SICK: dict[str, tuple[Beat, str]] = {
    "the loop does not move": (
        beat(phase=Phase.STORING, loop_seconds=120.001),
        "stuck: its loop has not moved for 120 s",
    ),
    "the loop does not move for a longer patience": (
        beat(phase=Phase.STORING, loop_seconds=300.5, stuck_after=300.0),
        "stuck: its loop has not moved for 300 s",
    ),
    "the beat is old": (
        beat(age=STALE_AFTER + 0.001),
        f"stuck: no heartbeat for {STALE_AFTER:.0f} s",
    ),
    "the beat is old while it waited for the database": (
        beat(age=STALE_AFTER + 2, phase=Phase.WAITING_FOR_DATABASE),
        f"stuck: no heartbeat for {STALE_AFTER + 2:.0f} s",
    ),
    "the beat is of a time before the boot": (
        beat(age=-5000),
        "stuck: no heartbeat for 5000 s",
    ),
    "it has been starting for long": (
        beat(phase=Phase.STARTING, phase_seconds=120.5),
        "still starting after 120 s",
    ),
    "it stopped": (beat(phase=Phase.STOPPED, age=STOPPED_GRACE + 0.001), "stopped"),
    "it stopped before the boot": (
        beat(phase=Phase.STOPPED, age=-STOPPED_GRACE - 0.001),
        "stopped",
    ),
    "it is another process of the same number": (
        beat(process_start=1),
        f"dead: process {os.getpid()} is gone",
    ),
    "there is no such process": (
        beat(NO_SUCH_PROCESS, process_start=1),
        f"dead: process {NO_SUCH_PROCESS} is gone",
    ),
    "it knew nothing of its process": (
        beat(process_start=None),
        "no heartbeat that can be read",
    ),
    "an older version wrote it": (beat(uptime=None), "no heartbeat that can be read"),
}


def test_it_is_sick_where_it_does_not_move_or_is_gone(checks: Checks) -> None:
    found = {}
    for case, (told, _) in SICK.items():
        write(checks, told)
        found[case] = agree(checks)
    assert found == {case: (Verdict.SICK, f"main: {why}") for case, (_, why) in SICK.items()}


HEALTHY = {
    "its loop has rested for as long as it may": beat(loop_seconds=120.0),
    "its patience is longer": beat(loop_seconds=299.9, stuck_after=300.0),
    "its last beat is not old yet": beat(age=STALE_AFTER),
    "it is just being restarted": beat(
        NO_SUCH_PROCESS, phase=Phase.STOPPED, process_start=1, age=STOPPED_GRACE
    ),
    "it has been starting for a while": beat(phase=Phase.STARTING, phase_seconds=119.9),
    "it waits for the database since yesterday": beat(
        phase=Phase.WAITING_FOR_DATABASE, loop_seconds=86400.0, phase_seconds=86400.0
    ),
}


def test_what_may_last_is_no_sickness(checks: Checks) -> None:
    wrong = {}
    for case, told in HEALTHY.items():
        write(checks, told)
        verdict, text = agree(checks)
        if verdict not in {Verdict.HEALTHY, Verdict.WAITING}:
            wrong[case] = text
    assert wrong == {}


def test_a_process_dies_and_becomes_a_zombie(checks: Checks, process: Process) -> None:
    worker = process()
    write(checks, beat(worker.pid))
    assert agree(checks)[0] is Verdict.HEALTHY
    worker.send_signal(signal.SIGSTOP)
    assert agree(checks)[0] is Verdict.HEALTHY, "only its silence tells that it is stopped"
    worker.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    zombie = agree(checks)
    worker.wait()
    assert zombie == agree(checks) == (Verdict.SICK, f"main: dead: process {worker.pid} is gone")


def test_a_process_may_have_any_name(checks: Checks, tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 (b"
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen(["setpriv", "--pdeathsig", "KILL", program, "1000"]) as odd:
        try:
            name = Path(f"/proc/{odd.pid}/comm")
            wait_until(
                lambda: ")" in name.read_text(), "its name", alive=lambda: odd.poll() is None
            )
            write(checks, beat(odd.pid))
            assert agree(checks)[0] is Verdict.HEALTHY
        finally:
            odd.kill()


GARBLED = {
    "missing": None,
    "empty": "",
    "cut off": json.dumps(asdict(beat()))[:-20],
    "a list": "[]\n",
    "nothing in it": "{}\n",
    "words for numbers": json.dumps(asdict(beat()) | {"pid": "one", "beat": "x"}) + "\n",
    "a fraction of a process": json.dumps(asdict(beat()) | {"pid": 1.5}) + "\n",
    "a negative patience": json.dumps(asdict(beat()) | {"stuck_after": -1}) + "\n",
    "a phase that nobody knows": json.dumps(asdict(beat()) | {"phase": "dancing"}) + "\n",
    "bytes": "\x01\x02\x7f\n",
}


def test_what_is_no_heartbeat_is_sick(checks: Checks) -> None:
    found = {}
    for case, text in GARBLED.items():
        write(checks, text)
        found[case] = agree(checks)
    sick = (Verdict.SICK, "main: no heartbeat that can be read")
    assert {case: said for case, said in found.items() if said != sick} == {}


def test_what_a_heartbeat_says_is_never_run(checks: Checks, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    evil = f"$(touch {mark})", f"`touch {mark}`", f"a[$(touch {mark})]", f'";touch {mark};"'
    healthy = json.dumps(asdict(beat()))
    for key in ("pid", "phase", "uptime", "stuck_after", "process_start"):
        for text in evil:
            raw = re.sub(rf'"{key}": [^,}}]*', lambda _, k=key, t=text: f'"{k}": {t}', healthy)
            write(checks, raw + "\n")
            for shell in SHELLS:
                assert checks.run("check-health", shell).returncode == 1, (raw, shell)
                assert not mark.exists(), (raw, shell)


def test_one_sick_instance_of_two_makes_the_host_sick_and_each_is_named(tmp_path: Path) -> None:
    checks = made(tmp_path, "main", "second")
    write(checks, beat())
    write(checks, beat(phase=Phase.WAITING_FOR_DATABASE), "second")
    for shell in SHELLS:
        done = checks.run("check-health", shell)
        assert (done.returncode, done.stdout) == (0, "second: waiting for the database\n")
    write(checks, beat(process_start=1), "second")
    for shell in SHELLS:
        done = checks.run("check-health", shell)
        assert done.returncode == 1
        assert done.stdout == f"second: dead: process {os.getpid()} is gone\n"


# -- space ------------------------------------------------------------------------------


@contextmanager
def file_system(path: Path, options: str) -> Iterator[None]:
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run([*ROOT, "mount", "-t", "tmpfs", "-o", options, "none", path], check=True)
    try:
        yield
    finally:
        subprocess.run([*ROOT, "umount", "--lazy", path], check=True)


def test_a_disk_is_low_below_one_limit_and_until_above_another(checks: Checks) -> None:
    write(checks, beat())
    with mounted(checks.data_in(), 10 * MIB) as disk:
        pages = 10 * MIB // 4096
        sick_at = ((20, False), (7, False), (5, False), (4, True), (7, True), (10, True))
        for percent, sick in (*sick_at, (11, False), (10, False), (7, False)):
            if (disk.path / "ballast").exists():
                disk.make_room()
            # So many percent or a little more.
            disk.fill(-(-percent * pages // 100) * 4096)
            verdict, text = agree(checks)
            assert verdict is (Verdict.SICK if sick else Verdict.HEALTHY), percent
            assert ("data_in is nearly full" in text) is sick
            checked = checks.result()
            assert checked is not None
            assert checked.low == ({"main:data_in"} if sick else set())


def test_without_its_memory_only_the_lower_limit_counts(checks: Checks) -> None:
    write(checks, beat())
    checks.state_dir.rmdir()
    with mounted(checks.data_in(), 10 * MIB) as disk:
        for free, code in ((3, 1), (7, 0)):
            disk.fill(free * MIB // 10)
            for shell in SHELLS:
                done = checks.run("check-health", shell)
                assert (done.returncode, done.stderr) == (code, ""), free
            disk.make_room()
    assert not checks.state_dir.exists()


def test_percentages_are_those_of_df(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", 4 * MIB) as disk:
        looks = [
            made(tmp_path / f"{warn}", limits=Limits(warn, 99), data_in={"main": disk.path})
            for warn in (0, 5, 50, 99)
        ]
        for free in (100_000, 250_000, 2_000_000, 3_900_000):
            if (disk.path / "ballast").exists():
                disk.make_room()
            disk.fill(free)
            for checks in looks:
                write(checks, beat())
                agree(checks)


def test_few_inodes_are_as_bad_as_little_space(checks: Checks) -> None:
    write(checks, beat())
    with file_system(checks.data_in(), "size=1m,nr_inodes=100,mode=0777"):
        assert agree(checks)[0] is Verdict.HEALTHY
        for number in range(96):
            (checks.data_in() / f"{number}").touch()
        verdict, text = agree(checks)
    assert verdict is Verdict.SICK
    assert "data_in is nearly full: 3 % free" in text


#: What stat and statvfs(3) say of a file system, and the percentage that follows.
NO_DISK = 2**64 - 1
ODD_DISKS = {
    "CephFS does not tell how many inodes are free": ((900, 1000, 950, 1000, NO_DISK), None),
    "inodes have no limit": ((900, 1000, 950, NO_DISK, NO_DISK), None),
    "there are no inodes": ((900, 1000, 950, 0, 0), None),
    "blocks have no limit": ((2**57, 2**57, 2**57, 2**62, 2**62), None),
    "a cloud has all that can be named": ((2**50, 2**50, 2**50, 2**50, 2**50), None),
    "what only root may use is being used": ((2**64 - 5, 1000, 10, 100, 50), 0),
    "it has no size": ((0, 0, 0, 0, 0), None),
    "one below the limit": ((4, 100, 4, 100, 100), 4),
    "at the limit": ((5, 100, 5, 100, 100), None),
    "one inode below the limit": ((50, 100, 50, 100, 4), 4),
    "at the limit of inodes": ((50, 100, 50, 100, 5), None),
}


def test_numbers_of_file_systems_mean_what_they_mean_to_df(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = tmp_path / "programs" / "stat"
    stub.parent.mkdir()
    monkeypatch.setenv("PATH", f"{stub.parent}:{os.environ['PATH']}")
    wrong = {}
    for number, (case, (numbers, percent)) in enumerate(ODD_DISKS.items()):
        # Each has a host of its own: what was low is remembered.
        checks = made(tmp_path / f"{number}")
        line = " ".join(map(str, numbers))
        stub.write_text(f"#!/bin/sh\necho {line}\necho {line}\n")
        stub.chmod(0o755)
        available, blocks, free, inodes, free_inodes = numbers
        seen = os.statvfs_result(
            (4096, 4096, blocks, free, available, inodes, free_inodes, free_inodes, 0, 255)
        )
        write(checks, beat())
        with monkeypatch.context() as playing:
            playing.setattr(os, "statvfs", lambda _, seen=seen: seen)
            verdict, text = agree(checks)
        full = f"data_in is nearly full: {percent} % free"
        if (verdict, full in text) != (
            (Verdict.HEALTHY, False) if percent is None else (Verdict.SICK, True)
        ):
            wrong[case] = text
    assert wrong == {}


def test_a_folder_that_is_gone_is_told(checks: Checks) -> None:
    write(checks, beat())
    checks.data_in().rmdir()
    assert agree(checks) == (Verdict.SICK, "main: data_in: cannot tell how full it is")


def test_a_full_var_shows_although_nothing_can_be_written(checks: Checks) -> None:
    with mounted(checks.paths().var, MIB) as disk:
        write(checks, beat())
        disk.fill()
        verdict, text = agree(checks)
    assert verdict is Verdict.SICK
    assert text == "main: var is nearly full: 0 % free"


# -- how it runs --------------------------------------------------------------------------


@pytest.fixture
def counting(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with the only programs that may be started, and the list of those that were."""
    folder, started = tmp_path / "bin", tmp_path / "started"
    folder.mkdir()
    started.touch()
    for name in ("stat", "mv", "rm"):
        stub = folder / name
        stub.write_text(f'#!/bin/sh\necho {name} >> {started}\nexec {shutil.which(name)} "$@"\n')
        stub.chmod(0o755)
    return folder, started


def test_two_programs_are_started_however_many_instances(
    tmp_path: Path, counting: tuple[Path, Path]
) -> None:
    names = ("main", "second", "third")
    checks = made(tmp_path / "home", *names)
    for name in names:
        write(checks, beat(), name)
    found = {}
    for script in SCRIPTS:
        for shell in SHELLS:
            counting[1].write_text("")
            done = checks.run(script, shell, path=str(counting[0]))
            assert (done.returncode, done.stderr) == (0, ""), shell
            found[script, shell] = counting[1].read_text().split()
    programs = {"check-health": ["stat", "mv"], "check-drop": ["rm", "mv"]}
    assert found == {(script, shell): programs[script] for script, shell in found}


def test_busyboxs_own_programs_will_do(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("stat", "mv", "rm"):
        (folder / name).symlink_to(shutil.which("busybox") or "")
    checks = made(tmp_path / "home")
    write(checks, beat())
    for script in SCRIPTS:
        done = checks.run(script, "busybox", path=str(folder))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert checks.result(script) is not None


def test_folders_may_have_any_name(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    root = tmp_path / f'it\'s $(touch {mark.name}) `x` "y" * ; #'
    checks = made(root)
    write(checks, beat())
    for shell in SHELLS:
        for script in SCRIPTS:
            done = checks.run(script, shell)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), shell
    assert not mark.exists()
    assert not Path("/mark").exists()


def test_root_who_tries_the_checks_out_writes_nothing_for_the_account_that_runs_them() -> None:
    assert os.geteuid() == 0, "this test becomes another user, and needs root for that"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        checks = made(Path(folder))
        for place in (checks.state_dir, checks.data_in()):
            os.chown(place, NOBODY, NOBODY)
        write(checks, beat())
        precious = Path(folder, "precious")
        precious.write_text("precious")
        links = [checks.state_dir / name for name in (".health.new", ".drop.new", ".drop-files")]
        for link in links:
            link.symlink_to(precious)
        for shell in SHELLS:
            for script in SCRIPTS:
                done = checks.run(script, shell)
                assert (done.returncode, done.stderr) == (0, "")
        assert precious.read_text() == "precious"
        assert sorted(checks.state_dir.iterdir()) == sorted(links)
        for link in links:
            link.unlink()
        wrapper = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        for shell in SHELLS:
            for script in SCRIPTS:
                done = checks.run(script, shell, wrapper=wrapper)
                assert (done.returncode, done.stderr) == (0, "")
                assert checks.result(script) is not None
                (checks.state_dir / script.removeprefix("check-")).unlink()


# -- the drop directory ---------------------------------------------------------------------


def takes(checks: Checks) -> bool:
    """What all the shells and Python say; nothing is left behind by any."""
    facts = gather(checks.paths(), checks.data_in())
    expected = facts.drop_error is None
    for shell in SHELLS:
        done = checks.run("check-drop", shell)
        assert done.returncode == (not expected), shell
        assert done.stdout == ("" if expected else "main: data_in takes no files\n"), shell
        assert done.stderr == "", shell
        left = checks.result("check-drop")
        assert left is not None
        assert left.result == ("takes" if expected else "fault")
    if checks.data_in().is_dir():
        assert not [name for name in os.listdir(checks.data_in()) if name.startswith(".check")]
    return expected


class TestDrop:
    def test_a_folder_takes_files_and_keeps_none_of_ours(self, checks: Checks) -> None:
        (checks.data_in() / "a.1.data").write_text("x")
        assert takes(checks)
        assert os.listdir(checks.data_in()) == ["a.1.data"]

    def test_a_missing_one_takes_none(self, checks: Checks) -> None:
        checks.data_in().rmdir()
        assert not takes(checks)

    def test_a_file_in_its_place_takes_none(self, checks: Checks) -> None:
        checks.data_in().rmdir()
        checks.data_in().touch()
        assert not takes(checks)

    def test_one_that_is_read_only_takes_none(self, checks: Checks) -> None:
        with file_system(checks.data_in(), "ro"):
            assert not takes(checks)

    def test_a_full_one_takes_none_until_there_is_room(self, checks: Checks) -> None:
        with mounted(checks.data_in(), MIB) as disk:
            assert takes(checks)
            disk.fill()
            assert not takes(checks)
            disk.make_room()
            assert takes(checks)

    def test_one_without_inodes_takes_none(self, checks: Checks) -> None:
        with file_system(checks.data_in(), "size=1m,nr_inodes=10,mode=0777"):
            for number in range(9):
                (checks.data_in() / f"{number}").touch()
            assert not takes(checks)

    def test_one_without_rights_takes_none(self) -> None:
        assert os.geteuid() == 0, "this test becomes another user, and needs root for that"
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            checks = made(Path(folder))
            checks.state_dir.chmod(0o777)
            wrapper = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            for mode, code in ((0o755, 1), (0o2733, 0), (0o2700, 1)):
                checks.data_in().chmod(mode)
                for shell in SHELLS:
                    done = checks.run("check-drop", shell, wrapper=wrapper)
                    assert (done.returncode, done.stderr) == (code, ""), (shell, mode)
                os.seteuid(NOBODY)
                try:
                    error = gather(checks.paths(), checks.data_in()).drop_error
                finally:
                    os.seteuid(0)
                assert (error is not None) == bool(code)
            assert error == f"Permission denied for user {NOBODY}"

    def test_of_two_the_one_is_named_that_takes_none(self, tmp_path: Path) -> None:
        checks = made(tmp_path, "main", "second")
        checks.data_in("second").rmdir()
        for shell in SHELLS:
            done = checks.run("check-drop", shell)
            assert (done.returncode, done.stdout) == (1, "second: data_in takes no files\n")
            assert os.listdir(checks.data_in()) == []

    def test_what_a_killed_run_left_is_removed_by_the_next(self, checks: Checks) -> None:
        left, other = checks.data_in() / ".check-drop.old", checks.data_in() / "a.1.data"
        for shell in SHELLS:
            left.touch()
            other.touch()
            (checks.state_dir / ".drop-files").write_text(f"{left}\n{other}\n")
            assert checks.run("check-drop", shell).returncode == 0, shell
            assert os.listdir(checks.data_in()) == ["a.1.data"], shell

    def test_files_that_cannot_be_removed_are_a_fault_and_do_not_pile_up(
        self, tmp_path: Path, counting: tuple[Path, Path]
    ) -> None:
        (counting[0] / "rm").write_text("#!/bin/sh\nexit 1\n")
        text = "files in data_in can be made but not removed\n"
        for shell in SHELLS:
            checks = made(tmp_path / shell)
            for _ in range(3):
                done = checks.run("check-drop", shell, path=str(counting[0]))
                assert (done.returncode, done.stdout) == (1, text), shell
            assert len(os.listdir(checks.data_in())) == 1, shell

    def test_a_run_that_is_told_to_end_removes_its_file(
        self, checks: Checks, counting: tuple[Path, Path]
    ) -> None:
        # It is told so by the program that it runs while the file is there, once.
        told = counting[0].parent / "told"
        (counting[0] / "rm").write_text(
            f'#!/bin/sh\n[ -e {told} ] || {{ : > {told}; kill -TERM "$PPID"; exit 0; }}\n'
            f'exec {shutil.which("rm")} "$@"\n'
        )
        for shell in SHELLS:
            assert checks.run("check-drop", shell, path=str(counting[0])).returncode == 1, shell
            assert os.listdir(checks.data_in()) == [], shell
            told.unlink()

    def test_its_result_can_be_read_by_all_and_its_file_by_nobody_else(
        self, checks: Checks, counting: tuple[Path, Path]
    ) -> None:
        modes = counting[0].parent / "modes"
        look, remove = shutil.which("stat"), shutil.which("rm")
        (counting[0] / "rm").write_text(
            f'#!/bin/sh\n{look} -c %a "$3" > {modes}\nexec {remove} "$@"\n'
        )
        assert checks.run("check-drop", path=str(counting[0])).returncode == 0
        assert modes.read_text() == "600\n"
        assert stat.S_IMODE((checks.state_dir / "drop").stat().st_mode) == 0o644
        assert stat.S_IMODE((checks.state_dir / ".drop-files").stat().st_mode) == 0o600
