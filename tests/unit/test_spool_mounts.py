"""A drop directory that is a mount of its own on the same file system, as under systemd.

Renaming does not work between two mounts, although the device is the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import PATIENCE

_HEAD = """
import sys
from pathlib import Path
from dataserver.errors import Reason
from dataserver.spool.directory import Spool
from dataserver.spool.rejected import Rejected

data_in, var = Path("data_in"), Path("var")
assert data_in.stat().st_dev == Path(".").stat().st_dev
rejected = Rejected(var / "rejected")
spool = Spool(data_in, max_packet=1000, checksum="ignore", rejected=rejected)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "data_in").mkdir()
    (tmp_path / "var").mkdir()
    return tmp_path


def among_mounts(place: Path, script: str) -> str:
    """Run Python where data_in is mounted on itself; what it printed."""
    assert os.geteuid() == 0, "this test mounts directories in a namespace, which takes root"
    mount = 'mount --make-rprivate / && mount --bind data_in data_in && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", _HEAD + script],
        cwd=place,
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_packet_is_set_aside_across_mounts_and_comes_back(place: Path) -> None:
    (place / "data_in/web1.1.data").write_bytes(b"no packet")
    rid = among_mounts(
        place,
        "[file] = spool.scan()\n"
        "spool.read(file)\n"
        "spool.reject(file, Reason.MALFORMED, 'why')\n"
        "print(rejected.list()[0].id)\n",
    ).strip()
    assert list((place / "data_in").iterdir()) == []
    assert (place / f"var/rejected/{rid}.data").read_bytes() == b"no packet"
    among_mounts(place, f"rejected.retry({rid!r}, data_in)\n")
    assert (place / "data_in/web1.1.data").read_bytes() == b"no packet"
    assert list((place / "var/rejected").iterdir()) == []


def test_a_packet_that_is_done_is_removed_across_mounts(place: Path) -> None:
    (place / "data_in/web1.1.data").write_bytes(b"a packet")
    done = "[file] = spool.scan()\nspool.read(file)\nprint(spool.done(file))\n"
    assert among_mounts(place, done) == "True\n"
    assert list((place / "data_in").iterdir()) == []


def test_what_was_leaving_before_there_were_two_mounts_is_put_back(place: Path) -> None:
    name = "x" * (255 - len(".1.data")) + ".1.data"
    (place / "var/leaving").mkdir()
    (place / "var/leaving" / name).write_bytes(b"a packet")
    assert among_mounts(place, "print(spool.recover())\n") == "1\n"
    assert (place / "data_in" / name).read_bytes() == b"a packet"
    assert [path.name for path in (place / "data_in").iterdir()] == [name]
    assert list((place / "var/leaving").iterdir()) == []


def test_a_file_with_a_hole_is_set_aside_with_its_hole(place: Path) -> None:
    """With one request an uploader makes a file of a terabyte that takes no room."""
    path = place / "data_in/web1.1.data"
    with path.open("wb") as file:
        file.write(b"begin")
        file.truncate(1 << 40)
        file.seek((1 << 40) - 3)
        file.write(b"end")
    among_mounts(place, "[file] = spool.scan()\nspool.reject(file, Reason.TOO_LARGE, 'why')\n")
    [kept] = (place / "var/rejected").glob("*.data")
    assert kept.stat().st_size == 1 << 40
    assert kept.stat().st_blocks * 512 < 1 << 20
    with kept.open("rb") as file:
        assert file.read(6) == b"begin\0"
        file.seek(-4, os.SEEK_END)
        assert file.read() == b"\0end"
    assert list((place / "data_in").iterdir()) == []
