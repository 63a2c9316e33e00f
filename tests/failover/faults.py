"""The faults: each begins with a pair that is well, and ends when what was broken is mended.

A fault is a function of a :class:`Scene`, which says to whom it is done.  It calls ``mark`` at the
instant at which the fault begins, and waits for what should follow.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from dataserver.packet.parse import ends_complete
from tests.failover.clients import BULK, Fleet
from tests.failover.host import Host
from tests.failover.lab import SERVER, SLOW, SSHD, Lab, said
from tests.support.sshd import HOME

_DATA_IN = HOME / "data_in"


@dataclass(slots=True)
class Scene:
    """A pair, its agents, and the host that has the address and to whom it happens."""

    lab: Lab
    fleet: Fleet
    #: When the fault began (epoch seconds).
    at: float = 0.0
    host: Host = field(init=False)
    twin: Host = field(init=False)

    def __post_init__(self) -> None:
        self.host = self.lab.active
        self.twin = self.lab.twin(self.host)

    def mark(self) -> None:
        """The fault begins now."""
        self.at = time.time()

    def wait_taken_over(self) -> None:
        """Wait until the other host has the address, and all agents upload to it."""
        self.lab.wait(lambda: self.twin.has_address, f"{self.twin.name} has the address")
        self.fleet.wait_sent()


Fault = Callable[[Scene], None]


def worker_killed(scene: Scene) -> None:
    """The server's process dies; its supervisor starts it again."""
    pid = scene.host.worker()
    scene.mark()
    scene.host.signal(signal.SIGKILL, pid)
    scene.lab.wait(lambda: scene.host.worker() not in {0, pid}, "another worker")
    scene.fleet.wait_sent()


def worker_stopped(scene: Scene) -> None:
    """The server's process does nothing any more, as one that hangs."""
    pid = scene.host.worker()
    scene.mark()
    scene.host.signal(signal.SIGSTOP, pid)
    try:
        scene.wait_taken_over()
    finally:
        scene.host.signal(signal.SIGCONT, pid)


def keepalived_and_sshd_killed(scene: Scene) -> None:
    """Both are gone with all their processes; systemd would start them again after a second."""
    host = scene.host
    victims = [*host.processes("keepalived"), *host.processes("sshd")]
    # None of them sees another one die, and has the time to leave in good order.
    host.signal(signal.SIGSTOP, *victims)
    scene.mark()
    host.signal(signal.SIGKILL, *victims)
    scene.wait_taken_over()


def power_cut(scene: Scene) -> None:
    """All processes are gone at once; packets lie on its disk, and some were only begun."""
    lab, host = scene.lab, scene.host
    # So that something is left: what was uploaded and not taken in, and a large packet half-way.
    _stop_worker(scene, in_transaction=False)
    lab.gate.close()
    try:
        lab.wait(lambda: _is_in_the_middle(scene), "packets, and one half-way")
        scene.mark()
        host.cut_power()
    finally:
        lab.gate.open()
    scene.wait_taken_over()
    host.boot()
    lab.start_all(host)


def power_cut_in_a_transaction(scene: Scene) -> None:
    """The database does not notice, and keeps the locks of a host that is gone."""
    lab, host = scene.lab, scene.host
    _stop_worker(scene, in_transaction=True)
    scene.mark()
    host.cut_power()
    scene.wait_taken_over()
    lab.wait(lambda: not lab.locks_of(host), "the database gives the locks back")
    host.boot()
    lab.start_all(host)


def link_down(scene: Scene) -> None:
    """The cable to the agents and to the other host has no carrier; that to the database has."""
    scene.mark()
    scene.lab.network.cut(scene.host.port)
    try:
        scene.wait_taken_over()
    finally:
        scene.lab.network.mend(scene.host.port)


def split_brain(scene: Scene) -> None:
    """The switches lose each other: both hosts have the address, agents reach the near one."""
    lab = scene.lab
    scene.mark()
    lab.network.cut("trunk-west")
    try:
        lab.wait(lambda: all(host.has_address for host in lab.hosts), "two with the address")
        scene.fleet.wait_sent()
        # What has arrived on one side comes again on the other one.
        lab.send_again(scene.fleet.made[-8:])
        scene.fleet.wait_sent()
    finally:
        lab.network.mend("trunk-west")
    lab.wait(lambda: sum(host.has_address for host in lab.hosts) == 1, "one with the address")


def data_in_unwritable(scene: Scene) -> None:
    """The drop directory's file system is read-only."""
    scene.host.run("mount", "--bind", _DATA_IN, _DATA_IN)
    # Busy while an upload has a file open for writing.
    scene.lab.wait(lambda: _remount_read_only(scene), "a moment without an upload")
    scene.mark()
    try:
        scene.wait_taken_over()
    finally:
        scene.host.run("umount", "--lazy", _DATA_IN)


def _remount_read_only(scene: Scene) -> bool:
    try:
        scene.host.run("mount", "-o", "remount,bind,ro", _DATA_IN)
    except AssertionError as error:
        if "busy" not in str(error):
            raise
        return False
    return True


def database_stopped(scene: Scene) -> None:
    """The database answers nobody; then it goes on."""
    lab = scene.lab
    scene.mark()
    with lab.database.stop_cont():
        # The other one has nothing to store, and so need not notice.
        lab.wait(lambda: _is_waiting(scene.host), "the server waits")
        scene.fleet.wait_sent()
    scene.fleet.wait_sent()


def orderly_stop(scene: Scene) -> None:
    """The host is shut down: keepalived first, as systemd does by the order of our drop-in."""
    lab, host = scene.lab, scene.host
    scene.mark()
    for service in (lab.keepalived, SERVER, SSHD):
        host.stop(service)
    scene.wait_taken_over()
    lab.start_all(host)


#: By their names in the table.
FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "orderly stop": orderly_stop,
        "power cut": power_cut,
        "power cut inside a transaction": power_cut_in_a_transaction,
        "link down": link_down,
        "link between the switches down, and healed": split_brain,
        "keepalived and sshd killed": keepalived_and_sshd_killed,
        "`data_in` unwritable": data_in_unwritable,
        "worker killed": worker_killed,
        "worker stopped (SIGSTOP)": worker_stopped,
        "database stopped (SIGSTOP), and continued": database_stopped,
    }
)


def _stop_worker(scene: Scene, *, in_transaction: bool) -> None:
    """SIGSTOP it at a moment at which it holds locks in the database, or at one at which not."""
    lab, host = scene.lab, scene.host
    worker = host.worker()

    def is_caught() -> bool:
        host.signal(signal.SIGSTOP, worker)
        # What it has asked the database for is done by then, and be it a commit.
        # (What it says of its transactions may be 0.1 s old.)
        time.sleep(0.25)
        if bool(lab.locks_of(host)) is in_transaction:
            return True
        host.signal(signal.SIGCONT, worker)
        time.sleep(0.013)
        return False

    lab.wait(is_caught, "the right moment")


def _is_in_the_middle(scene: Scene) -> bool:
    """Whether whole packets lie in the drop directory, and one whose rest is held back."""
    if scene.lab.gate.held < SLOW:
        return False  # one that goes on might look as if it were held
    packets = []
    for path in scene.host.data_in.glob("*.data"):
        with contextlib.suppress(FileNotFoundError):  # stored since the directory was listed
            packets.append(path.read_bytes())
    whole = [each for each in packets if ends_complete(each)]
    return len(whole) >= 5 and any(len(each) > BULK // 8 for each in packets if each not in whole)


def _is_waiting(host: Host) -> bool:
    return said(host, "health").get("result") == "waiting"
