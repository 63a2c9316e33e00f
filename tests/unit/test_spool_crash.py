"""Killed in the middle of it: at every fail point a packet is in one place or known to be done."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from dataserver.spool.directory import Spool
from dataserver.spool.rejected import Rejected

FIRST = b"<agent_data agent_name='first'></agent_data>"
SECOND = b"<agent_data agent_name='second'></agent_data>"

#: Does each job in a process of its own; says how they ended.
WORK = """
import os, sys
from pathlib import Path
from dataserver import failpoints
from dataserver.errors import Reason
from dataserver.spool.directory import Spool
from dataserver.spool.rejected import Rejected

def work(base, what):
    rejected = Rejected(base / "var" / "rejected")
    spool = Spool(base / "data_in", max_packet=1000, checksum="ignore", rejected=rejected)
    for file in spool.scan():
        file = spool.read(file).file
        if what == "done":
            spool.done(file)
        else:
            spool.reject(file, Reason.MALFORMED, "broken")

what, *jobs = sys.argv[1:]
for base, failpoint in zip(jobs[::2], jobs[1::2]):
    child = os.fork()
    if child == 0:
        failpoints._armed = failpoints._parse(failpoint)
        work(Path(base), what)
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def made(base: Path) -> Path:
    """A drop directory with two packets in it."""
    (base / "data_in").mkdir(parents=True)
    (base / "data_in" / "a.1.data").write_bytes(FIRST)
    (base / "data_in" / "b.2.data").write_bytes(SECOND)
    os.utime(base / "data_in" / "a.1.data", (1, 1))
    return base


def worked(folder: Path, what: str, failpoints: Iterable[str]) -> dict[str, Path]:
    """Let a process work at its own packets up to each fail point; where they are."""
    bases = {each: made(folder / f"at {each}") for each in failpoints}
    jobs = [word for each, base in bases.items() for word in (str(base), each)]
    command = [sys.executable, "-c", WORK, what, *jobs]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    assert result.stdout.split() == ["-9" if each else "0" for each in bases]
    return bases


def restart(base: Path) -> tuple[list[bytes | None], list[bytes]]:
    """What is there to be read, and what is rejected, when the next process starts."""
    rejected = Rejected(base / "var" / "rejected")
    path = base / "data_in"
    with Spool(path, max_packet=1000, checksum="ignore", rejected=rejected) as spool:
        spool.recover()
        readable = [spool.read(file).content for file in spool.scan()]
        assert len(readable) == len(os.listdir(path))
        return readable, [rejected.content(record.id) for record in rejected.list()]


def test_a_file_is_there_until_it_is_done_and_every_other_stays(tmp_path: Path) -> None:
    expected = {
        "before-unlink": [FIRST, SECOND],
        "inside-done": [FIRST, SECOND],
        "after-unlink": [SECOND],
        "inside-done:2": [SECOND],
        "": [],
    }
    bases = worked(tmp_path, "done", expected)
    found = {failpoint: restart(base) for failpoint, base in bases.items()}
    assert found == {failpoint: (left, []) for failpoint, left in expected.items()}


def test_a_file_put_back_after_a_crash_keeps_its_name_and_its_time(tmp_path: Path) -> None:
    base = worked(tmp_path, "done", ["inside-done"])["inside-done"]
    assert sorted(os.listdir(base / "data_in")) == ["b.2.data"]
    restart(base)
    assert (base / "data_in" / "a.1.data").stat().st_mtime == 1


def test_a_file_is_in_data_in_or_among_the_rejected_and_never_in_neither(tmp_path: Path) -> None:
    expected = {
        "inside-reject": ([FIRST, SECOND], []),
        "inside-reject:2": ([SECOND], [FIRST]),
        "": ([], [FIRST, SECOND]),
    }
    found = {}
    for failpoint, base in worked(tmp_path, "reject", expected).items():
        readable, kept = restart(base)
        found[failpoint] = (readable, sorted(kept))
    assert found == expected
