"""The lab's cables: network namespaces, bridges in one of them, and what is plugged into those.

::

    clients west --- [west] === trunk === [east] --- clients east
                       |                     |
                     alpha                 beta          what agents and keepalived use
                       |                     |
                       +------ [store] ------+           the database, on a network of its own

Namespaces have no names on the machine: each lives as long as a process of ours holds it, and ours
die with the process that made the lab.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: What agents upload to, and the networks of :data:`LAN` (192.0.2.0/24) and of the database.
VIRTUAL = "192.0.2.10"
STORE = "198.51.100.1"
WEST, EAST = "west", "east"
_BRIDGES = (WEST, EAST, "store")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def enter(pid: int) -> None:
    """Move the calling thread, and what it starts from now on, into a process's network."""
    with open(f"/proc/{pid}/ns/net", "rb") as there:
        _set(there.fileno())


@contextmanager
def inside(pid: int) -> Iterator[None]:
    """The calling thread is in a process's network inside the block."""
    with open("/proc/thread-self/ns/net", "rb") as here:
        enter(pid)
        try:
            yield
        finally:
            _set(here.fileno())


def _set(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


class Network:
    """The switches, the clients' namespaces, and the cables; ``close`` ends it all."""

    def __init__(self) -> None:
        self._holders: list[subprocess.Popen[bytes]] = []
        self.switch = self._hold()
        self.clients = {WEST: self._hold(), EAST: self._hold()}
        for number, bridge in enumerate(_BRIDGES, 1):
            # An address of its own, else it changes with what is plugged in.
            self._ip(f"link add name {bridge} address 02:00:00:00:00:{number:02x} type bridge")
            self._ip(f"link set {bridge} up")
        self._ip("link add name trunk-west type veth peer name trunk-east")
        for side in (WEST, EAST):
            self._ip(f"link set trunk-{side} master {side} up")
        self._ip(f"address add {STORE}/24 dev store")
        for number, (side, pid) in enumerate(self.clients.items(), 21):
            self.plug(f"client-{side}", side, pid, "eth0", f"192.0.2.{number}/24")

    def close(self) -> None:
        """The end of all namespaces that nothing else lives in."""
        for process in self._holders:
            process.kill()
            process.communicate()

    def plug(self, port: str, bridge: str, pid: int, interface: str, address: str) -> None:
        """A cable from a bridge's port to a process's network."""
        # What was there before, of a host that lost its power, goes a moment after the host.
        self._ip(f"link delete {port}", check=False)
        self._ip(f"link add name {port} type veth peer name {interface} netns {pid}")
        self._ip(f"link set {port} master {bridge} up")
        ip(pid, f"address add {address} dev {interface}")
        ip(pid, f"link set {interface} up")

    def cut(self, *ports: str, check: bool = True) -> None:
        """No carrier on these ports any more, or for the trunk's: nothing passes."""
        for port in ports:
            self._ip(f"link set {port} down", check=check)

    def mend(self, *ports: str) -> None:
        """Carrier again."""
        for port in ports:
            self._ip(f"link set {port} up")

    def _ip(self, command: str, *, check: bool = True) -> None:
        ip(self.switch, command, check=check)

    def _hold(self) -> int:
        """A network namespace with its loopback; the process that holds it."""
        script = "ip link set lo up && echo ready && exec sleep infinity"
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._holders.append(process)
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == b"ready\n", said
        return process.pid


def ip(pid: int, command: str, *, check: bool = True) -> None:
    """Run ``ip`` in a process's network."""
    enter_first = ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]
    done = subprocess.run(
        [*enter_first, "ip", *command.split()], check=False, capture_output=True, text=True
    )
    assert not check or done.returncode == 0, (command, done.stderr)


def unfit() -> str | None:
    """Why no lab can be made here; None: it can."""
    if os.geteuid() != 0:
        return "the failover lab makes namespaces and networks of its own, which takes root"
    done = subprocess.run(
        [
            *("unshare", "--net", "--mount", "--pid", "--uts", "--fork", "--kill-child=KILL"),
            *("--mount-proc", "sh", "-c", "ip link add name b type bridge && hostname lab"),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return f"the failover lab cannot make namespaces here: {done.stderr.strip()}"
    missing = [each for each in _PROGRAMS if not any((d / each).exists() for d in _PATH)]
    return f"the failover lab needs {', '.join(missing)}" if missing else None


_PROGRAMS = ("keepalived", "sshd", "scp", "ip", "nsenter", "setpriv", "mariadbd")
_PATH = [Path(each) for each in ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin")]
