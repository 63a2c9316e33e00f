"""A machine of its own for tests of units: systemd is process 1 of private namespaces.

:class:`Machine`  /etc, /run, /tmp and /var are private, and so are the processes; `instances units
                  --install` may do there what it likes.  Nothing of it reaches the real machine,
                  and all of it ends with it

The interpreter, its packages and this checkout are below /opt there, wherever they really are:
the service user can read them, and ProtectHome and PrivateTmp can be on.  Needs root.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dataserver.config.paths import Home
from tests.support.waiting import PATIENCE, wait_until
from tests.support.warm import Warm

T = TypeVar("T")

HOME = Path("/var/lib/dataserver")
#: Where the program is, there.
PYTHON = Path("/opt/dataserver/bin/python")
#: A directory that is the same there and outside.
SHARED = Path("/run/shared")
_LOOK = 0.05

#: What of systemd's own is there: enough to boot, and nothing that touches devices or networks.
_UNITS = (
    *("basic", "default", "emergency", "exit", "final", "graphical", "local-fs", "local-fs-pre"),
    *("multi-user", "network", "network-online", "paths", "poweroff", "reboot", "remote-fs"),
    *("rescue", "shutdown", "slices", "sockets", "sysinit", "time-sync", "timers", "umount"),
)

#: Before systemd: a control group of our own, so that what it makes is found and removed.
_OUTER = """
set -eu
mkdir "$1/cgroup"
mount --make-rprivate /
mount -t cgroup2 none "$1/cgroup"
own=$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir "$1/cgroup/$own/$2"
echo $$ > "$1/cgroup/$own/$2/cgroup.procs"
exec unshare --pid --fork --kill-child=KILL --cgroup --uts --ipc bash -c "$3" bash "$1" "$4"
"""
#: As process 1, until it becomes systemd.
_INNER = """
set -eu
mount -t tmpfs -o mode=755 private "$1"
cd "$1"
mkdir etc units opt
cp -a /etc/. etc/
# Not the machine's services, those of its System V scripts included.
rm -rf etc/systemd/system etc/sysusers.d etc/tmpfiles.d etc/machine-id etc/init.d etc/rc?.d
mkdir -p etc/systemd/system etc/sysusers.d etc/tmpfiles.d etc/systemd/journald.conf.d
printf '[Journal]\nReadKMsg=no\nStorage=volatile\n' > etc/systemd/journald.conf.d/test.conf
echo 0123456789abcdef0123456789abcdef > etc/machine-id
ln -s /lib/systemd/system/multi-user.target etc/systemd/system/default.target
for unit in {units}; do cp -a "/lib/systemd/system/$unit" units/; done
mkdir units/sysinit.target.wants units/sockets.target.wants
ln -s ../systemd-journald.service units/sysinit.target.wants/
ln -s ../systemd-journald.socket ../systemd-journald-dev-log.socket units/sockets.target.wants/
{program}
mount --bind etc /etc
mount --bind units /lib/systemd/system
mount --rbind opt /opt
mount -t tmpfs -o mode=755 private /run
mkdir /run/shared
mount --bind "$2" /run/shared
for folder in /home /srv /tmp /var; do mount -t tmpfs -o mode=755 private $folder; done
chmod 1777 /tmp
mkdir -p /var/tmp /var/lib /var/log
chmod 1777 /var/tmp
mount -t proc proc /proc
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cd /
exec env -i container=test LC_ALL=C.UTF-8 "PATH=$PATH" \\
    /lib/systemd/systemd --system --log-target=console --log-level=info
"""
_CLEAR = """
set -eu
mount --make-rprivate /
mount -t cgroup2 none "$1/cgroup"
own=$(sed -n 's/^0:://p' /proc/self/cgroup)
find "$1/cgroup/$own/$2" -depth -type d -exec rmdir {} +
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """One that runs; ``root`` is where its files are found from outside."""

    pid: int
    #: Outside; ``shared`` in it is :data:`SHARED` there.
    directory: Path
    warm: Warm

    @property
    def root(self) -> Path:
        return Path(f"/proc/{self.pid}/root")

    @property
    def home(self) -> Home:
        """Its home, as it is found from outside."""
        return Home(self.outside(HOME))

    def outside(self, path: Path) -> Path:
        """What is ``path`` there."""
        return self.root / path.relative_to("/")

    def run(self, *command: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program there, as root."""
        done = subprocess.run(
            [*self.entering(), *map(str, command)],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE,
            env=_ENVIRONMENT,
        )
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done

    def entering(self) -> list[str]:
        """What stands before a command that is to run there."""
        return _entering(self.pid)

    def dataserver(
        self, *args: object, check: bool = True, home: Path = HOME
    ) -> subprocess.CompletedProcess[str]:
        """Run our command there, as root."""
        done = self.warm.run("--home", home, *args)
        assert not check or done.returncode == 0, (args, done.stdout, done.stderr)
        return done

    def account(self, name: str) -> tuple[int, int]:
        """Number and group of an account."""
        lines = (self.root / "etc/passwd").read_text().splitlines()
        fields = next(line.split(":") for line in lines if line.startswith(f"{name}:"))
        return int(fields[2]), int(fields[3])

    def upload(self, name: str, content: bytes, data_in: Path = HOME / "data_in") -> Path:
        """Put a file into a drop directory, with the owner and mode that an upload gives it."""
        target = self.outside(data_in) / name
        part = target.with_name(f".part-{name}")
        part.write_bytes(content)
        os.chown(part, *self.account("dataserver-upload"))
        part.chmod(0o240)
        part.rename(target)
        return target

    def row(self, instance: str = "main") -> dict[str, Any]:
        """What `instances list` says of an instance; empty: it is not there."""
        listed = json.loads(self.dataserver("instances", "list", "--json").stdout)
        assert listed["manager"] == "systemd", listed
        found = [row for row in listed["instances"] if row["name"] == instance]
        return found[0] if found else {}

    def wait_state(self, state: str, instance: str = "main", but_not: int | None = None) -> int:
        """Wait until an instance is in ``state``, with another process; its process."""

        def reached() -> bool:
            row = self.row(instance)
            return row.get("state") == state and (but_not is None or row["pid"] != but_not)

        self.wait(reached, f"{instance} {state}")
        return int(self.row(instance)["pid"] or 0)

    def packets(self, database: Path = HOME / "var/dataserver.db") -> int:
        """How many packets are in the ledger of an SQLite file."""
        count = "import sqlite3, sys; base = sqlite3.connect(sys.argv[1]); "
        count += "print(base.execute('SELECT count(*) FROM tpacket').fetchone()[0])"
        return int(self.run(PYTHON, "-c", count, database).stdout)

    def adapt(self, unit: str, text: str) -> None:
        """Have a drop-in for a unit, as an administrator would."""
        folder = self.outside(Path("/etc/systemd/system")) / f"{unit}.d"
        folder.mkdir(exist_ok=True)
        (folder / "test.conf").write_text(text)
        self.run("systemctl", "daemon-reload")

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit."""
        said = self.run("systemctl", "show", f"--property={','.join(properties)}", unit).stdout
        return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)

    def wait(self, condition: Callable[[], T], what: str) -> T:
        """Wait until ``condition()`` is true, and return it."""
        return wait_until(condition, lambda: f"{what}\n{self.journal()[-4000:]}", pause=_LOOK)

    def journal(self, *options: str) -> str:
        """What everybody there said until now, but systemd itself."""
        self.run("journalctl", "--sync", check=False)
        return self.run("journalctl", "--no-pager", "--quiet", *options, check=False).stdout


@contextmanager
def machine(directory: Path) -> Iterator[Machine]:
    """One that has booted, with nothing of ours but the program."""
    assert os.geteuid() == 0, "this test boots a machine of its own, which takes root"
    private = directory / "private"
    private.mkdir(parents=True)
    shared = directory / "shared"
    shared.mkdir(mode=0o755)
    group = f"dataserver-test-{os.getpid()}-{time.monotonic_ns()}"
    inner = _INNER.replace("{units}", " ".join(_units())).replace("{program}", _program())
    with (directory / "console").open("wb") as console:
        process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "bash", "-c", _OUTER),
                *("bash", str(private), group, inner, str(shared)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
            env={"PATH": _PATH},
        )
    try:
        pid = _first_child(process)
        made = Machine(pid, directory, Warm(_entering(pid), PYTHON, _ENVIRONMENT))
        booted = ("systemctl", "is-system-running", "--wait")
        wait_until(
            lambda: made.run(*booted, check=False).stdout.strip() in ("running", "degraded"),
            lambda: f"its boot\n{(directory / 'console').read_text(errors='replace')[-4000:]}",
            alive=lambda: process.poll() is None,
            pause=_LOOK,
        )
        try:
            yield made
        finally:
            made.warm.close()
    finally:
        process.kill()
        process.wait()
        _clear(private, group)


@contextmanager
def installed(directory: Path) -> Iterator[Machine]:
    """One as an administrator has it after `init` and `units --install`; nothing is started.

    What takes long otherwise is short: the pauses before a restart.
    """
    with machine(directory) as made:
        made.dataserver("init")
        made.home.config.write_text('timezone = "UTC"\nsettle = 0\nscan_interval = 0.2\n')
        made.dataserver("instances", "units", "--install")
        made.adapt("dataserver@.service", "[Service]\nRestartSec=100ms\n")
        yield made


def _entering(pid: int) -> list[str]:
    return ["nsenter", "--target", str(pid), "-m", "-p", "-u", "-i", "-C", "--"]


def _first_child(process: subprocess.Popen[bytes]) -> int:
    """The process 1 of the machine, as its number is outside."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

    def has_become_systemd() -> int:
        with suppress(OSError):
            found = children.read_text().split()
            if found and Path(f"/proc/{found[0]}/comm").read_text().strip() == "systemd":
                return int(found[0])
        return 0

    return wait_until(has_become_systemd, "systemd", alive=lambda: process.poll() is None)


def _clear(private: Path, group: str) -> None:
    """Remove the control groups that systemd made; they are empty once all have ended."""
    command = ["unshare", "--mount", "bash", "-c", _CLEAR, "bash", str(private), group]
    wait_until(
        lambda: subprocess.run(command, check=False, capture_output=True).returncode == 0,
        "the end of all that ran there",
        pause=_LOOK,
    )


def _units() -> list[str]:
    names = [f"{name}.target" for name in _UNITS]
    names += [f"systemd-journald{each}" for each in (".service", ".socket", "-dev-log.socket")]
    return [name for name in names if (Path("/lib/systemd/system") / name).exists()]


def _program() -> str:
    """Shell commands that put interpreter, packages and checkout into opt/."""
    base = Path(sys.base_prefix)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    mounts = {
        "packages": Path(sysconfig.get_path("purelib")),
        "checkout": Path(__file__).parents[2],
    }
    if base != Path("/usr"):
        mounts["base"] = base
    lines = ["mkdir -p opt/dataserver/bin", f"mkdir -p opt/dataserver/lib/{version}/site-packages"]
    for name, path in mounts.items():
        lines += [f"mkdir opt/{name}", f"mount --bind '{path}' opt/{name}"]
    real = "/opt/base" if "base" in mounts else "/usr"
    lines += [
        f"ln -s {real}/bin/{version} opt/dataserver/bin/python",
        f"printf 'home = {real}/bin\\n' > opt/dataserver/pyvenv.cfg",
        "printf '/opt/checkout\\n/opt/packages\\n' "
        f"> opt/dataserver/lib/{version}/site-packages/here.pth",
    ]
    return "\n".join(lines)


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {"PATH": _PATH, "LC_ALL": "C.UTF-8"}
