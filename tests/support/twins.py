"""Two hosts with real keepalived processes, in namespaces on one cable; needs root.

Each has its own network, processes, ``/run`` and ``/etc/keepalived``; the rest is this machine's.
keepalived is started and cleaned up after as the rendered systemd drop-in says.  Everything ends
with the test's process.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dataserver.vrrp.health import read_result
from dataserver.vrrp.model import Host, Pair
from dataserver.vrrp.renderer import INSTALLED
from dataserver.vrrp.status import LastNotified, read_state
from tests.support.pairs import rendered, write
from tests.support.waiting import PATIENCE, wait_until

_NAMESPACES = ["--mount", "--net", "--pid", "--uts", "--fork", "--kill-child=KILL"]
_STATE_DIR = "/run/dataserver-keepalived"
_INIT = """\
set -eu
mount -t proc proc /proc
mount -t tmpfs -o mode=0755 tmpfs /run
mount -t tmpfs -o mode=0755 tmpfs /etc/keepalived
hostname "$1"
ip link set lo up
mkdir -p /run/home/var/main /run/home/data_in
chown nobody /run/home/data_in
printf '#!/bin/sh\\necho "$1 $2" >> /run/home/history\\n' > /run/home/record
chmod 755 /run/home/record
touch /run/home/history
chown nobody /run/home/history
echo ready
# Takes in orphans.
sleep 1000000 &
wait
"""
_BEATS = """
import os, sys, time
from pathlib import Path
from dataserver.runtime.heartbeat import Heartbeat, Phase
os.umask(0o022)
heartbeat = Heartbeat(Path("/run/home/var/main/heartbeat.json"), "test")
heartbeat.start()
heartbeat.enter(Phase.IDLE)
while True:
    heartbeat.step()
    time.sleep(0.2)
"""
#: For :class:`Box` to be rendered for: its home, the account of the checks, a record of changes.
SETTINGS = 'home = "/run/home"\nscript_user = "nobody"\nadvert_int = 0.5\n'
TABLES = """
[check]
interval = 1
timeout = 10
fall = 1
rise = 1
disk_warn_percent = 1
disk_ok_percent = 2
[notify]
command = ["/run/home/record"]
"""


class Box:
    """One host."""

    def __init__(self, pair: Pair, host: Host, files: Path) -> None:
        self.host = host
        self.addresses = [str(each.ip) for each in pair.virtual_addresses]
        self._files = files / host.name
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", *_NAMESPACES]
        command += ["--propagation", "private", "sh", "-c", _INIT, "sh", host.name]
        self._keeper = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == "ready\n"
        children = Path(f"/proc/{self._keeper.pid}/task/{self._keeper.pid}/children")
        self.pid = int(children.read_text())
        self._keepalived: subprocess.Popen[bytes] | None = None
        self._beats: subprocess.Popen[bytes] | None = None

    def end(self) -> None:
        """Everything in it ends with its first process."""
        self._keeper.kill()
        self._keeper.wait()
        for process in (self._keepalived, self._beats):
            if process is not None:
                process.wait(PATIENCE)
        assert self._keeper.stdout is not None
        self._keeper.stdout.close()

    def run(self, *command: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run something in it, as root."""
        words = [*self._enter(), *map(str, command)]
        return subprocess.run(words, check=check, capture_output=True, text=True, timeout=PATIENCE)

    def start_keepalived(self) -> None:
        """As systemd would with the drop-in."""
        self.run("install", "-d", "-m", "0755", _STATE_DIR)
        for command in self._directives("ExecStartPre"):
            self.run(*command)
        # Before all else, so that a busy machine does not look like a host that went silent.
        words = [*self._enter(), "nice", "-n", "-20"]
        words += ["keepalived", "--dont-fork", "--log-console", "--log-detail"]
        log = (self._files.parent / f"{self.host.name}.log").open("ab")
        with log:
            self._keepalived = subprocess.Popen(words, stdout=log, stderr=log)

    def deploy(self) -> None:
        """Put the files where its README says."""
        for name, place in INSTALLED.items():
            if str(place).startswith("/etc/keepalived/"):
                mode = "0755" if os.access(self._files / name, os.X_OK) else "0644"
                self.run("install", "-D", "-m", mode, self._files / name, place)

    def stop_keepalived(self) -> None:
        """Ask it to leave, and wait until it has."""
        self.run("kill", self.run("cat", "/run/keepalived.pid").stdout.strip())
        assert self._keepalived is not None
        self._keepalived.wait(PATIENCE)

    def kill_keepalived(self) -> None:
        """All of its processes at once, as if by the kernel."""
        pids = [each for each in self.processes() if each[1] == "keepalived"]
        # Children first: their parent's end would be a SIGTERM to them, and they would tidy up.
        self.run("kill", "-KILL", *sorted((pid for pid, _ in pids), reverse=True))
        assert self._keepalived is not None
        self._keepalived.wait(PATIENCE)

    def after_keepalived(self) -> None:
        """What systemd does when it has ended."""
        for command in self._directives("ExecStopPost"):
            self.run(*command)
        self.run("rm", "-rf", _STATE_DIR)

    def processes(self) -> list[tuple[int, str]]:
        """Its processes but zombies, with the names of their programs."""
        lines = self.run("ps", "-eo", "pid=,stat=,comm=").stdout.splitlines()
        words = [line.split(None, 2) for line in lines]
        return [(int(pid), name) for pid, stat, name in words if not stat.startswith("Z")]

    def reload_keepalived(self) -> None:
        pid = self.run("cat", "/run/keepalived.pid").stdout.strip()
        self.run("kill", "-HUP", pid)

    def be_well(self) -> None:
        """An instance that beats."""
        words = [*self._enter(), sys.executable, "-P", "-c", _BEATS]
        self._beats = subprocess.Popen(words)
        beat = self.root / "run/home/var/main/heartbeat.json"
        wait_until(beat.exists, "a heartbeat")

    def be_sick(self) -> None:
        """It is killed."""
        assert self._beats is not None
        for pid, name in self.processes():
            if name.startswith("python"):
                self.run("kill", "-KILL", pid)
        self._beats.wait(PATIENCE)

    def take_no_files(self) -> None:
        self.run("chown", "root", "/run/home/data_in")

    def status(self) -> tuple[int, dict[str, object]]:
        """What `dataserver keepalived status --json` says here, and its exit code."""
        home = self._files.parents[1]
        command = [sys.executable, "-P", "-m", "dataserver", "--home", home]
        done = self.run(*command, "keepalived", "status", "--json", check=False)
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout)

    def has_address(self) -> bool:
        """Whether all virtual addresses are here."""
        found = {each["local"] for each in self._link().get("addr_info", ())}
        return found.issuperset(self.addresses)

    def has_carrier(self) -> bool:
        """Whether the cable is in."""
        return bool(self._link().get("operstate") == "UP")

    def _link(self) -> dict[str, Any]:
        link: dict[str, Any] = json.loads(
            self.run("ip", "-json", "address", "show", "eth0").stdout
        )[0]
        return link

    @property
    def root(self) -> Path:
        """Its files, seen from outside."""
        return Path(f"/proc/{self.pid}/root")

    @property
    def known(self) -> LastNotified | None:
        return read_state(self.root / "run/dataserver-keepalived/state")

    @property
    def state(self) -> str | None:
        return self.known.state if self.known else None

    def checked_at(self) -> float:
        """When check-health ran last, in seconds since boot."""
        checked = read_result("check-health", self.root / "run/dataserver-keepalived")
        return checked.uptime if checked else 0.0

    def history(self) -> list[str]:
        """All states, as the configured command was told."""
        lines = (self.root / "run/home/history").read_text().splitlines()
        assert all(line.endswith(f" {self.host.name}") for line in lines)
        return [line.split()[0] for line in lines]

    def log(self) -> str:
        """What keepalived said."""
        return (self._files.parent / f"{self.host.name}.log").read_text(errors="replace")

    def _enter(self) -> list[str]:
        options = ["--target", str(self.pid), "--mount", "--net", "--pid", "--uts"]
        return ["setpriv", "--pdeathsig", "KILL", "nsenter", *options]

    def _directives(self, key: str) -> Iterator[Sequence[str]]:
        for line in (self._files / "keepalived.service.conf").read_text().splitlines():
            if line.startswith(f"{key}="):
                yield shlex.split(line.partition("=")[2].removeprefix("-"))


@contextmanager
def twins(home: Path, pair: Pair) -> Iterator[tuple[Box, Box]]:
    """Both hosts of ``pair``, deployed, on a cable and well; keepalived not started yet."""
    assert os.geteuid() == 0, "this test makes namespaces with networks: run it as root"
    write(rendered(pair), home / "keepalived")
    with ExitStack() as stack:
        boxes = []
        for host in pair.hosts:
            box = Box(pair, host, home / "keepalived")
            stack.callback(box.end)
            boxes.append(box)
        first, second = boxes
        # From outside of their processes, which see each other's numbers not.
        cable = ["nsenter", "--target", str(first.pid), "--net", "ip", "link", "add", "eth0"]
        cable += ["type", "veth", "peer", "name", "eth0", "netns", str(second.pid)]
        subprocess.run(cable, check=True, timeout=PATIENCE)
        for box in boxes:
            for address in filter(None, (box.host.address, box.host.address6)):
                extra = ["nodad"] if address.version == 6 else []
                box.run("ip", "address", "add", address.with_prefixlen, "dev", "eth0", *extra)
            box.run("ip", "link", "set", "eth0", "up")
            box.deploy()
            box.be_well()
        for box in boxes:
            wait_until(box.has_carrier, "a carrier")
        yield first, second
