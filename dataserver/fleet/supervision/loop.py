"""``dataserver up``: the one loop that hears everything and lets the supervisor react.

One thread: what processes print, tell and end by, signals, the folders (looked at twice a
second: any tool may change them) and time.  The supervisor itself is in
:mod:`dataserver.fleet.supervision.supervisor`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from dataserver.config.paths import Home
from dataserver.errors import LockedError, SpoolError
from dataserver.fleet.model import Instance, Managed, SupervisorState, supervisor_file
from dataserver.fleet.supervision.processes import Hears, Journals, Processes
from dataserver.fleet.supervision.supervisor import (
    Ended,
    InstancesListed,
    Message,
    Shutdown,
    Supervisor,
)
from dataserver.runtime.heartbeat import process_start
from dataserver.sd_notify import notifier
from dataserver.spool.lock import holder

log = logging.getLogger(__name__)

#: Seconds between two looks at the folders.
LOOK = 0.5
#: Seconds after which the state is written again though nothing has changed.
_WRITE = 5.0

_LEAVE = (signal.SIGTERM, signal.SIGINT)


class Up:
    """Runs the instances of ``home`` until it is told to leave.

    ``instances()`` gives those that there are; ``hear`` what they print; ``show`` how things
    stand, about twice a second.
    """

    def __init__(
        self,
        home: Home,
        instances: Callable[[], Sequence[Instance]],
        *,
        environment: Mapping[str, str],
        hear: Hears,
        show: Callable[[Mapping[str, Managed]], None] = lambda _: None,
    ) -> None:
        self._home = home
        self._instances = instances
        self._show = show
        self._selector = selectors.DefaultSelector()
        self._journals = Journals(home, hear)
        self._notify = notifier(environment)
        processes = Processes(home, environment, self._selector, self._tell, self._journals.write)
        self._supervisor = Supervisor(processes, _holder, clock=time.time, monotonic=time.monotonic)
        self._started = time.time()
        self._shown: Mapping[str, Managed] | None = None
        self._written = self._looked = float("-inf")
        #: Why the folders could not be looked at the last time; None: they could.
        self._blind: int | None = None

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; the second one kills.  SIGHUP: look at the folders now.

        Raises LockedError where another supervisor has this home, SpoolError where ``var``
        cannot be used.
        """
        with _locked(self._home), self._signals():
            self._notify("READY=1")
            while not self._supervisor.finished:
                self._turn()
            self._write(self._supervisor.snapshot())
            self._notify("STOPPING=1")

    def _turn(self) -> None:
        if time.monotonic() - self._looked >= LOOK:
            self._looked = time.monotonic()
            self._look()
        watched = self._selector.get_map()
        for key, _ in self._selector.select(self._patience()):
            # Not one whose process's end, a moment ago, has closed it.
            if watched.get(key.fd) is key:
                react, subject = key.data
                react(subject)
        self._supervisor.tick()
        self._report()

    def _look(self) -> None:
        try:
            instances = self._instances()
        except OSError as error:
            # For a moment, or for long: those that run go on.
            if error.errno != self._blind:
                log.warning("cannot look at %s: %s", self._home.instances, error.strerror)
            self._blind = error.errno
            return
        self._blind = None
        self._tell(InstancesListed(instances))
        self._journals.keep(self._supervisor.snapshot())

    def _tell(self, message: Message) -> None:
        if isinstance(message, Ended):
            # Why it ended may stand in its folder: stopped, changed, restarted by somebody.
            self._look()
        self._supervisor.react(message)

    def _patience(self) -> float:
        now = time.monotonic()
        due = self._supervisor.due()
        next_look = self._looked + LOOK
        return max(0.0, min(next_look, next_look if due is None else due) - now)

    def _report(self) -> None:
        snapshot = self._supervisor.snapshot()
        changed = snapshot != self._shown
        if changed or time.monotonic() - self._written >= _WRITE:
            self._write(snapshot)
            self._notify("WATCHDOG=1")
        with contextlib.suppress(OSError):  # as in the journals
            self._show(snapshot)

    def _write(self, snapshot: Mapping[str, Managed]) -> None:
        self._shown, self._written = snapshot, time.monotonic()
        state = SupervisorState(
            pid=os.getpid(),
            process_start=process_start(os.getpid()),
            started=self._started,
            written=time.time(),
            instances=snapshot,
        )
        # On a full disk `list` still has the heartbeats, and a later try comes.
        with contextlib.suppress(OSError):
            state.write(supervisor_file(self._home))

    # -- signals ---------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn signals into bytes that wake the loop, which then reacts to them."""
        ours, kernels = socket.socketpair()
        ours.setblocking(False)
        kernels.setblocking(False)
        numbers = (*_LEAVE, signal.SIGHUP)
        # This first: a signal that nobody reads would be lost.
        fd = signal.set_wakeup_fd(kernels.fileno(), warn_on_full_buffer=False)
        before = {number: signal.signal(number, _ignore) for number in numbers}
        self._selector.register(ours, selectors.EVENT_READ, (self._signalled, ours))
        try:
            yield
        finally:
            signal.set_wakeup_fd(fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            ours.close()
            kernels.close()

    def _signalled(self, ours: socket.socket) -> None:
        for number in ours.recv(4096):
            if number in _LEAVE:
                log.info("leaving: every instance finishes its batch; once more kills them")
                self._tell(Shutdown())
            else:
                self._looked = float("-inf")


def _ignore(*_: object) -> None:
    """The wake-up descriptor tells of the signal."""


def _holder(instance: Instance) -> int | None:
    try:
        return holder(instance.paths.var)
    except OSError:
        return None  # what is wrong there, its own start will say


def lock_path(home: Home) -> Path:
    """The file that a supervisor of this home has locked."""
    return home.var / "supervisor.lock"


@contextlib.contextmanager
def _locked(home: Home) -> Iterator[None]:
    """Hold the home's supervisor lock, which the kernel drops with the process."""
    try:
        home.var.mkdir(mode=0o751, parents=True, exist_ok=True)
        fd = os.open(lock_path(home), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise SpoolError(
            f"cannot lock {lock_path(home)}: {error.strerror}",
            hint="check that this user may write there",
        ) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            state = SupervisorState.read(supervisor_file(home))
            who = f"process {state.pid}" if state and state.alive else "another process"
            raise LockedError(
                f"{home.root} is supervised by {who} already", hint="stop that one first"
            ) from None
        yield
    finally:
        os.close(fd)
