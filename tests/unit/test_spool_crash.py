"""Killed in the middle of it: at every fail point a packet is in one place or known to be done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dataserver.spool.directory import Spool
from dataserver.spool.rejected import Rejected

FIRST = b"<agent_data agent_name='first'></agent_data>"
SECOND = b"<agent_data agent_name='second'></agent_data>"

WORK = """
import sys
from pathlib import Path
from dataserver.errors import Reason
from dataserver.spool.directory import Spool
from dataserver.spool.rejected import Rejected
base = Path(sys.argv[1])
rejected = Rejected(base / "var" / "rejected")
spool = Spool(base / "data_in", max_packet=1000, checksum="ignore", rejected=rejected)
for file in spool.scan():
    file = spool.read(file).file
    if sys.argv[2] == "done":
        spool.done(file)
    else:
        spool.reject(file, Reason.MALFORMED, "broken")
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "data_in").mkdir()
    (tmp_path / "data_in" / "a.1.data").write_bytes(FIRST)
    (tmp_path / "data_in" / "b.2.data").write_bytes(SECOND)
    os.utime(tmp_path / "data_in" / "a.1.data", (1, 1))
    return tmp_path


def work(base: Path, what: str, failpoint: str) -> None:
    environment = os.environ | {"DATASERVER_FAILPOINT": failpoint}
    command = [sys.executable, "-c", WORK, str(base), what]
    result = subprocess.run(command, env=environment, check=False)
    assert result.returncode == (-9 if failpoint else 0)


def restart(base: Path) -> tuple[list[bytes | None], list[bytes]]:
    """What is there to be read, and what is rejected, when the next process starts."""
    rejected = Rejected(base / "var" / "rejected")
    path = base / "data_in"
    with Spool(path, max_packet=1000, checksum="ignore", rejected=rejected) as spool:
        spool.recover()
        readable = [spool.read(file).content for file in spool.scan()]
        assert len(readable) == len(os.listdir(path))
        return readable, [rejected.content(record.id) for record in rejected.list()]


@pytest.mark.parametrize(
    ("failpoint", "left"),
    [
        ("before-unlink", [FIRST, SECOND]),
        ("inside-done", [FIRST, SECOND]),
        ("after-unlink", [SECOND]),
        ("inside-done:2", [SECOND]),
        ("", []),
    ],
)
def test_a_file_is_there_until_it_is_done_and_every_other_stays(base, failpoint, left) -> None:
    work(base, "done", failpoint)
    assert restart(base) == (left, [])


def test_a_file_put_back_after_a_crash_keeps_its_name_and_its_time(base) -> None:
    before = (base / "data_in" / "a.1.data").stat().st_mtime_ns
    work(base, "done", "inside-done")
    assert sorted(os.listdir(base / "data_in")) == ["b.2.data"]
    restart(base)
    assert (base / "data_in" / "a.1.data").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("failpoint", "left", "rejected"),
    [
        ("inside-reject", [FIRST, SECOND], []),
        ("inside-reject:2", [SECOND], [FIRST]),
        ("", [], [FIRST, SECOND]),
    ],
)
def test_a_file_is_in_data_in_or_among_the_rejected_and_never_in_neither(
    base, failpoint, left, rejected
) -> None:
    work(base, "reject", failpoint)
    readable, kept = restart(base)
    assert (readable, sorted(kept)) == (left, rejected)
