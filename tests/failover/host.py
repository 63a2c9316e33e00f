"""A host of the lab: namespaces of its own, a disk that outlives them, and services on it.

:class:`Host`     boots, loses its power, runs programs; knows its processes and its addresses
:class:`Service`  what systemd would be to one program of it: pre, command, post, restart

Its disk is a directory with ``/etc`` and ``/var/lib``; ``/run`` is made anew at each boot.
Everything in it dies with its first process, which dies with the test.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dataserver.config.paths import Home, Paths
from tests.failover.network import VIRTUAL, Network
from tests.support.sshd import HOME, SSHD_CONFIG, expose
from tests.support.waiting import PATIENCE
from tests.support.warm import shared

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
}
#: Makes the namespaces a host; its arguments: the disk's directory, the host's name.
_BOOT = """\
set -eu
hostname "$2"
mount --bind "$1/etc" /etc
mount --bind "$1/lib" /var/lib
mount -t tmpfs -o mode=755 private /run
mkdir -m 755 /run/sshd
mkdir -m 1777 /run/tmp
ip link set lo up
"""
# It collects the dead whom nobody else waits for, as every first process has to.
_FIRST = """\
echo ready
exec >/dev/null 2>&1
while :; do sleep 3600 & wait $!; done
"""
#: A line of `ip -o -ts monitor address`.
_MOVE = re.compile(r"\[(\S+)\] (Deleted )?.*\binet (\S+)/")


@dataclass(frozen=True, slots=True)
class Service:
    """A program that is started again a second after it ended, unless it was stopped.

    ``pre`` and ``post`` are shell commands before it starts and after it ended.
    """

    name: str
    command: str
    pre: tuple[str, ...] = ()
    post: tuple[str, ...] = ()

    def script(self) -> str:
        """What does to it as systemd would."""
        lines = [
            "mkdir -p /run/services",
            f"stop=/run/services/{self.name}.stop pid=/run/services/{self.name}.pid",
            'rm -f "$stop"',
            "while :; do",
            *self.pre,
            f"{self.command} &",
            'echo $! > "$pid"',
            "wait $!",
            *self.post,
            '[ ! -e "$stop" ] || exit 0',
            "sleep 1",
            "done",
        ]
        return "\n".join(lines)


class Host:
    """One host; ``side`` is the bridge to which it is plugged."""

    def __init__(
        self, name: str, directory: Path, network: Network, *, side: str, number: int
    ) -> None:
        self.name = name
        self.side = side
        self.directory = directory
        self._network = network
        self._number = number
        self._holder: subprocess.Popen[bytes] | None = None
        self._services: dict[str, subprocess.Popen[bytes]] = {}
        #: When it lost its power (epoch seconds).
        self._cuts: list[float] = []
        for folder in ("disk/lib", "log"):
            (directory / folder).mkdir(parents=True)
        subprocess.run(["cp", "-a", "/etc", directory / "disk/etc"], check=True)
        ssh = directory / "disk/etc/ssh"
        subprocess.run(["rm", "-rf", ssh / "sshd_config.d"], check=True)
        (ssh / "sshd_config.d").mkdir()
        (ssh / "sshd_config").write_text(SSHD_CONFIG)

    # -- power -----------------------------------------------------------------

    def boot(self) -> None:
        """Its namespaces and cables; no service yet."""
        assert self._holder is None, "it is on"
        places = [Path(sys.base_prefix), Path(sys.prefix), Path(__file__).parents[2]]
        script = _BOOT + expose(places) + _FIRST
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid"]
        command += ["--uts", "--ipc", "--fork", "--kill-child=KILL", "--mount-proc"]
        self._holder = subprocess.Popen(
            [*command, "sh", "-c", script, "sh", str(self.directory / "disk"), self.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**_ENVIRONMENT, "TMPDIR": "/run/tmp"},
        )
        assert self._holder.stdout is not None
        said = self._holder.stdout.readline()
        assert said == b"ready\n", said + self._holder.stdout.read()
        for port, bridge, interface, address in (
            (self.port, self.side, "eth0", f"192.0.2.{self._number}"),
            (self.store_port, "store", "eth1", self.store_address),
        ):
            self._network.plug(port, bridge, self.pid, interface, f"{address}/24")
        self._spawn("address", "ip -ts -4 -o monitor address dev eth0")

    def cut_power(self) -> None:
        """Everything on it is gone between two instructions, and so are its cables."""
        assert self._holder is not None
        os.kill(self.pid, signal.SIGKILL)
        # Where its network is gone already, so are its cables.
        self._network.cut(self.port, self.store_port, check=False)
        self._cuts.append(time.time())
        self.close()

    def close(self) -> None:
        """Power it off for good, if it is on."""
        if self._holder is not None:
            self._holder.kill()
            self._holder.communicate()
            self._holder = None
        for process in self._services.values():
            process.wait()
        self._services.clear()

    @property
    def is_on(self) -> bool:
        return self._holder is not None

    @property
    def pid(self) -> int:
        """The first process on it, as it is numbered outside."""
        assert self._holder is not None, "it is off"
        holder = self._holder.pid
        return int(Path(f"/proc/{holder}/task/{holder}/children").read_text())

    @property
    def port(self) -> str:
        """The switch's end of the cable to the agents."""
        return self.name

    @property
    def store_port(self) -> str:
        """The switch's end of the cable to the database."""
        return f"{self.name}-db"

    @property
    def store_address(self) -> str:
        """As the database knows it."""
        return f"198.51.100.{self._number}"

    # -- files -----------------------------------------------------------------

    @property
    def root(self) -> Path:
        """Its files, seen from outside, while it is on."""
        return Path(f"/proc/{self.pid}/root")

    @property
    def home(self) -> Home:
        """Its home, on its disk: also while it is off."""
        return Home(self.directory / "disk/lib/dataserver")

    @property
    def paths(self) -> Paths:
        return self.home.instance()

    @property
    def data_in(self) -> Path:
        return self.home.root / "data_in"

    def packets(self) -> list[str]:
        """What lies in its drop directory, or was on its way out when it lost its power."""
        folders = (self.data_in, self.paths.var / "leaving")
        names = (os.listdir(folder) for folder in folders if folder.is_dir())
        return sorted(name for some in names for name in some if name.endswith(".data"))

    def log(self, service: str, length: int = 3000) -> str:
        """The last of what a service said, in all its lives."""
        path = self.directory / "log" / service
        return path.read_text("utf-8", "replace")[-length:] if path.exists() else ""

    # -- programs --------------------------------------------------------------

    def run(self, *command: object, stdin: str = "") -> str:
        """Run a program on it, as root; what it printed."""
        done = subprocess.run(
            [*self._enter(), *map(str, command)],
            check=False,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=PATIENCE,
            env=_ENVIRONMENT,
        )
        assert done.returncode == 0, (self.name, command, done.stdout, done.stderr)
        return done.stdout

    def dataserver(self, *args: object, stdin: str = "") -> str:
        """Run our command on it, as root."""
        there = [f"/proc/{self.pid}/ns/{kind}" for kind in ("net", "mnt", "uts", "ipc", "pid")]
        done = shared().run(
            *("--home", HOME, *args), stdin=stdin, namespaces=there, environment=_ENVIRONMENT
        )
        assert done.returncode == 0, (self.name, args, done.stdout, done.stderr)
        return done.stdout

    def start(self, service: Service) -> None:
        """Start it; it goes on until it is stopped or the power goes."""
        running = self._services.get(service.name)
        assert running is None or running.poll() is not None, f"{service.name} runs"
        self._spawn(service.name, "sh", "-c", service.script())

    def stop(self, service: Service) -> None:
        """End it in good order, and wait for that."""
        self.run("touch", f"/run/services/{service.name}.stop")
        self.run("sh", "-c", f"kill -TERM $(cat /run/services/{service.name}.pid)")
        try:
            self._services[service.name].wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{service.name}: {self.log(service.name)}") from None

    def processes(self, name: str) -> list[int]:
        """The processes of a program on it, as they are numbered outside."""
        here = os.readlink(f"/proc/{self.pid}/ns/pid")
        return sorted(pid for pid, comm in _all_processes(here) if comm == name)

    def worker(self) -> int:
        """The process of the instance main, as it is numbered outside; 0: there is none."""
        here = os.readlink(f"/proc/{self.pid}/ns/pid")
        for pid, _ in _all_processes(here):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"--child-of" in words:
                return pid
        return 0

    def signal(self, number: signal.Signals, *pids: int) -> None:
        """Send processes of its own a signal, those that are there yet."""
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def _spawn(self, name: str, *command: str) -> None:
        words = command[0].split() if len(command) == 1 else command
        with (self.directory / "log" / name).open("ab") as log:
            self._services[name] = subprocess.Popen(
                [*self._enter(), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_ENVIRONMENT,
            )

    def _enter(self) -> Sequence[str]:
        return ("nsenter", "--target", str(self.pid), *_NAMESPACES, "--")

    # -- the address -------------------------------------------------------------

    @property
    def has_address(self) -> bool:
        """Whether it has the virtual address now."""
        return bool(self.reigns) and self.reigns[-1][1] is None

    @property
    def reigns(self) -> list[tuple[float, float | None]]:
        """From when until when it had the virtual address (epoch seconds; None: until now)."""
        found: list[tuple[float, float | None]] = []
        for at, has_it in sorted([*self._moves(), *((cut, False) for cut in self._cuts)]):
            is_open = bool(found) and found[-1][1] is None
            if has_it and not is_open:
                found.append((at, None))
            elif not has_it and is_open:
                found[-1] = (found[-1][0], at)
        return found

    def _moves(self) -> Iterator[tuple[float, bool]]:
        for at, deleted, address in _MOVE.findall(self.log("address", 1_000_000)):
            if address == VIRTUAL:
                yield datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp(), not deleted


_NAMESPACES = ("--net", "--mount", "--pid", "--uts", "--ipc")


def _all_processes(namespace: str) -> Iterator[tuple[int, str]]:
    """Every process of a process namespace: its number outside, and its program's name."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            if os.readlink(f"/proc/{entry}/ns/pid") == namespace:
                yield int(entry), Path(f"/proc/{entry}/comm").read_text().strip()
        except OSError:
            continue
