"""The status of this host of a pair: whether it has the address, since when, and its checks.

It comes from this machine only, without the database: from its addresses, keepalived's process, and
the files that keepalived's programs wrote into :data:`dataserver.vrrp.health.STATE_DIR`.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dataserver.errors import DataserverError, UsageError
from dataserver.runtime.heartbeat import process_start
from dataserver.vrrp.health import LATEST, STATE_DIR, Checked, read_left, read_result
from dataserver.vrrp.model import Host, Pair
from dataserver.vrrp.renderer import SCRIPTS

_TIMEOUT = 10.0
#: Where keepalived writes its process number, with and without `use_pid_dir`.
_PID_FILES = (Path("/run/keepalived.pid"), Path("/run/keepalived/keepalived.pid"))
STATES = frozenset({"MASTER", "BACKUP", "FAULT", "STOP"})


@dataclass(frozen=True, slots=True)
class LastNotified:
    """The last state that the notify program wrote."""

    #: One of :data:`STATES`.
    state: str
    #: Epoch seconds.
    since: float
    priority: int


@dataclass(frozen=True, slots=True)
class HostStatus:
    """What is known on this host."""

    pair: Pair
    host: Host
    #: The virtual addresses of this machine, each with its interface.
    here: tuple[tuple[str, str], ...]
    #: keepalived's process, or None if it does not run.
    pid: int | None
    known: LastNotified | None
    #: Whether the notify program runs: keepalived starts it once.
    is_told: bool
    health: Checked | None
    drop: Checked | None

    @property
    def has_address(self) -> bool:
        """Whether this machine has all virtual addresses."""
        return len(self.here) == len(self.pair.virtual_addresses)

    @property
    def is_master(self) -> bool:
        """Whether keepalived runs and says that this host has the address."""
        return self.knows and self.known is not None and self.known.state == "MASTER"

    @property
    def knows(self) -> bool:
        """Whether the last state that notify wrote is current."""
        return self.pid is not None and self.is_told

    def problems(self) -> Iterator[str]:
        """The problems, each as one line with its remedy."""
        if self.pid is None:
            yield "keepalived does not run; `systemctl start keepalived`"
        elif not self.is_told:
            yield (
                f"notify does not run, and what it wrote into {STATE_DIR} is old; "
                "`systemctl restart keepalived`, which moves the address"
            )
        elif self.known is None:
            yield f"notify has written nothing into {STATE_DIR}; `systemctl restart keepalived`"
        yield from self._misplaced()
        yield from self._checks()

    def _misplaced(self) -> Iterator[str]:
        """Whether the address is not where it should be, as far as that is known."""
        where = " on ".join(self.here[0]) if self.here else ""
        if self.here and self.pid is None:
            address, interface = self.here[0]
            yield f"{where} is left behind; `ip address flush dev {interface} to {address}`"
        elif self.here and self.knows and self.known is not None and not self.is_master:
            # Not to be removed by hand: notify may have missed the change, since after a reload
            # keepalived (2.2.7) does not report again that it is MASTER.
            state = self.known.state
            yield f"{where} although notify was told {state}; `systemctl restart keepalived`"
        if self.is_master and not self.has_address:
            there = {address for address, _ in self.here}
            lost = [str(v.ip) for v in self.pair.virtual_addresses if str(v.ip) not in there]
            yield f"MASTER without {', '.join(lost)}; `systemctl restart keepalived`"

    def _checks(self) -> Iterator[str]:
        check = self.pair.check
        patience = 3 * (check.interval + check.timeout)
        for script, checked, bad in (
            ("check-health", self.health, "sick"),
            ("check-drop", self.drop, "fault"),
        ):
            if checked is None or (checked.age is not None and checked.age < 0):
                yield f"{script} has never run; see `journalctl -u keepalived`"
            elif checked.age is not None and checked.age > patience:
                yield (
                    f"{script} has not finished for {checked.age:.0f} s: it hangs (on a dead NFS, "
                    "for example), or keepalived does; `ps -eo pid,stat,wchan,args` shows where"
                )
            elif checked.result == bad:
                yield f"{script}: {checked.text}"


def look(pair: Pair, state_dir: Path = STATE_DIR) -> HostStatus:
    """The status of this machine.

    Raises UsageError if it is not one of the pair's hosts, DataserverError if its addresses
    cannot be read, OSError if the results of the checks cannot be read.
    """
    addresses = _addresses()
    return HostStatus(
        pair=pair,
        host=_this_host(pair, addresses),
        here=tuple(
            (str(virtual.ip), addresses[str(virtual.ip)])
            for virtual in pair.virtual_addresses
            if str(virtual.ip) in addresses
        ),
        pid=_keepalived(),
        known=read_state(state_dir / "state"),
        is_told=_notify_runs(),
        health=read_result("check-health", state_dir),
        drop=read_result("check-drop", state_dir),
    )


def read_state(path: Path) -> LastNotified | None:
    """The state that notify wrote into ``path``, or None if it is missing or invalid."""
    values = read_left(path)
    try:
        known = LastNotified(values["state"], int(values["since"]), int(values["priority"]))
    except (KeyError, ValueError):
        return None
    return known if known.state in STATES and 0 <= known.since < LATEST else None


def _this_host(pair: Pair, addresses: dict[str, str]) -> Host:
    for host in pair.hosts:
        if str(host.address.ip) in addresses:
            return host
    name = socket.gethostname().partition(".")[0].lower()
    for host in pair.hosts:
        if host.name.lower() == name:
            return host
    first, second = pair.hosts
    raise UsageError(
        f"this machine is neither {first.name} ({first.address.ip}) nor {second.name} "
        f"({second.address.ip})",
        hint="run it on one of them, or correct the hosts in pair.toml",
    )


def _addresses() -> dict[str, str]:
    """The addresses of this machine, each with its interface."""
    command = ["ip", "-json", "address", "show"]
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=_TIMEOUT
        )
        found = {}
        for link in json.loads(done.stdout or b"[]"):
            for each in link.get("addr_info", ()):
                found[str(ipaddress.ip_address(each["local"]))] = str(link["ifname"])
    except OSError as exc:
        raise DataserverError(
            f"ip cannot be run: {exc.strerror}", hint="`apt-get install iproute2`"
        ) from exc
    except (subprocess.SubprocessError, ValueError, KeyError, TypeError) as exc:
        raise DataserverError(f"`{' '.join(command)}` failed: {exc}") from exc
    return found


def _keepalived() -> int | None:
    """keepalived's pid, or None if no process has it any more, or another program or a zombie."""
    for path in _PID_FILES:
        try:
            pid = int(path.read_text("ascii"))
            name = Path(f"/proc/{pid}/comm").read_text()
            # A zombie still has its name, but no start time.
            if name == "keepalived\n" and process_start(pid) is not None:
                return pid
        except (OSError, ValueError):
            continue
    return None


def _notify_runs() -> bool:
    """Whether a process reads the FIFO into which keepalived writes its state changes."""
    words = [str(SCRIPTS / "notify"), f"{STATE_DIR}.fifo"]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_text("utf-8", "replace").split("\0")[-3:-1] == words:
                return True
    return False
