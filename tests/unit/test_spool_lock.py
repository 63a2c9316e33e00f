"""One process per instance and per drop directory, whatever path leads there."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dataserver.errors import LockedError, SpoolError
from dataserver.spool.lock import InstanceLock, holder

HOLD = """
import sys
from pathlib import Path
from dataserver.spool.lock import InstanceLock
with InstanceLock(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])):
    print("locked", flush=True)
    sys.stdin.read()
"""

#: The same with a child, which is there when it is said to be, and lives on when this one dies.
HOLD_WITH_A_CHILD = """
import os, sys
from pathlib import Path
from dataserver.spool.lock import InstanceLock
with InstanceLock(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])):
    if os.fork() == 0:
        print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def data_in(tmp_path: Path) -> Path:
    path = tmp_path / "data_in"
    path.mkdir()
    return path


@contextmanager
def held_elsewhere(
    name: str, directory: Path, data_in: Path, program: str = HOLD
) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the locks until the block ends."""
    command = [sys.executable, "-c", program, name, str(directory), str(data_in)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"locked\n"
            yield process
        finally:
            process.kill()


def test_a_second_start_of_an_instance_is_refused_and_told_by_whom(tmp_path, data_in) -> None:
    var = tmp_path / "var" / "main"
    with held_elsewhere("main", var, data_in) as process, pytest.raises(LockedError) as caught:
        InstanceLock("main", var, data_in).acquire()
    assert f"instance main is already run by process {process.pid}" in str(caught.value)


def test_another_instance_on_the_same_directory_is_refused_and_told_by_whom(tmp_path, data_in):
    var = tmp_path / "main"
    with held_elsewhere("main", var, data_in) as process, pytest.raises(LockedError) as caught:
        InstanceLock("two", tmp_path / "two", data_in).acquire()
    assert f"data_in is already used by process {process.pid}" in str(caught.value)


def test_a_link_to_the_directory_is_the_same_directory(tmp_path, data_in) -> None:
    (tmp_path / "link").symlink_to(data_in)
    with InstanceLock("main", tmp_path / "main", data_in), pytest.raises(LockedError):
        InstanceLock("two", tmp_path / "two", tmp_path / "link").acquire()


def test_a_refused_start_leaves_nothing_locked(tmp_path, data_in) -> None:
    with InstanceLock("main", tmp_path / "main", data_in):
        with pytest.raises(LockedError):
            InstanceLock("two", tmp_path / "two", data_in).acquire()
        assert holder(tmp_path / "two") is None


def test_different_instances_run_side_by_side(tmp_path, data_in) -> None:
    (tmp_path / "other").mkdir()
    one = InstanceLock("main", tmp_path / "main", data_in)
    two = InstanceLock("two", tmp_path / "two", tmp_path / "other")
    with one, two:
        assert holder(tmp_path / "main") == holder(tmp_path / "two") == os.getpid()


def test_a_released_lock_is_free(tmp_path, data_in) -> None:
    lock = InstanceLock("main", tmp_path / "main", data_in)
    lock.acquire()
    lock.release()
    lock.release()
    with InstanceLock("main", tmp_path / "main", data_in):
        pass


def test_a_killed_process_holds_nothing(tmp_path, data_in) -> None:
    with held_elsewhere("main", tmp_path / "main", data_in) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with InstanceLock("main", tmp_path / "main", data_in):
            pass


def test_a_forked_child_does_not_keep_its_dead_parents_lock(tmp_path, data_in) -> None:
    var = tmp_path / "main"
    with held_elsewhere("main", var, data_in, HOLD_WITH_A_CHILD) as process:
        process.kill()
        process.wait()
        with InstanceLock("main", var, data_in):
            # The child ends with its input: it has lived until here.
            assert select.select([process.stdout], [], [], 0) == ([], [], [])


def test_the_holder_of_an_instance_is_known(tmp_path, data_in) -> None:
    var = tmp_path / "main"
    assert holder(var) is None
    with held_elsewhere("main", var, data_in) as process:
        assert holder(var) == process.pid
        assert (var / "lock").read_text() == f"{process.pid}\n"
    assert holder(var) is None


def test_a_missing_drop_directory_is_an_error_of_the_spool(tmp_path) -> None:
    with pytest.raises(SpoolError, match=r"cannot lock .*nowhere: No such file"):
        InstanceLock("main", tmp_path / "main", tmp_path / "nowhere").acquire()
    assert holder(tmp_path / "main") is None
