"""``dataserver up``: the event loop that passes everything that happens to the supervisor.

One thread handles the output, notifications and ends of processes, signals, the folders (read
twice a second, since any tool may change them) and time.  The supervisor itself is in
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
from dataserver.fleet.supervision.processes import Journals, LineHandler, Processes
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

#: Seconds between two readings of the folders.
LOOK = 0.5
#: Seconds after which the state is written again even if nothing has changed.
_WRITE = 5.0

_LEAVE = (signal.SIGTERM, signal.SIGINT)


class Up:
    """Runs the instances of ``home`` until a signal ends it.

    ``instances()`` lists all instances; ``on_line`` gets what they print; ``on_state`` gets
    their states, about twice a second.
    """

    def __init__(
        self,
        home: Home,
        instances: Callable[[], Sequence[Instance]],
        *,
        environment: Mapping[str, str],
        on_line: LineHandler,
        on_state: Callable[[Mapping[str, Managed]], None] = lambda _: None,
    ) -> None:
        self._home = home
        self._instances = instances
        self._on_state = on_state
        self._selector = selectors.DefaultSelector()
        self._journals = Journals(home, on_line)
        self._notify = notifier(environment)
        processes = Processes(home, environment, self._selector, self._tell, self._journals.write)
        self._supervisor = Supervisor(processes, _holder, clock=time.time, monotonic=time.monotonic)
        self._started = time.time()
        self._shown: Mapping[str, Managed] | None = None
        self._written = self._looked = float("-inf")
        #: The errno of the last reading of the folders, or None if it succeeded.
        self._look_error: int | None = None

    def run(self) -> None:
        """Run until SIGTERM or SIGINT; the second one kills.  SIGHUP: read the folders now.

        Raises LockedError if another supervisor runs this home, SpoolError if ``var`` cannot be
        used.
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
            # Unless the end of its process has just closed it.
            if watched.get(key.fd) is key:
                react, subject = key.data
                react(subject)
        self._supervisor.tick()
        self._report()

    def _look(self) -> None:
        try:
            instances = self._instances()
        except OSError as error:
            # However long this lasts, running instances go on.
            if error.errno != self._look_error:
                log.warning("cannot list %s: %s", self._home.instances, error.strerror)
            self._look_error = error.errno
            return
        self._look_error = None
        self._tell(InstancesListed(instances))
        self._journals.keep(self._supervisor.snapshot())

    def _tell(self, message: Message) -> None:
        if isinstance(message, Ended):
            # Its folder may tell why it ended: it was stopped, changed or restarted.
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
            self._on_state(snapshot)

    def _write(self, snapshot: Mapping[str, Managed]) -> None:
        self._shown, self._written = snapshot, time.monotonic()
        state = SupervisorState(
            pid=os.getpid(),
            process_start=process_start(os.getpid()),
            started=self._started,
            written=time.time(),
            instances=snapshot,
        )
        # On a full disk `list` still has the heartbeats, and it is tried again later.
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
        # This first: a signal before it would be lost.
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
                log.info("stopping: each instance finishes its batch; a second signal kills them")
                self._tell(Shutdown())
            else:
                self._looked = float("-inf")


def _ignore(*_: object) -> None:
    """Do nothing: the loop reads the signal from the wake-up descriptor."""


def _holder(instance: Instance) -> int | None:
    try:
        return holder(instance.paths.var)
    except OSError:
        return None  # its own start will report the problem


def lock_path(home: Home) -> Path:
    """The file that the supervisor of this home locks."""
    return home.var / "supervisor.lock"


@contextlib.contextmanager
def _locked(home: Home) -> Iterator[None]:
    """Hold the home's supervisor lock, which the kernel releases with the process."""
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
            process = f"process {state.pid}" if state and state.alive else "another process"
            raise LockedError(
                f"{home.root} is supervised by {process} already", hint="stop that one first"
            ) from None
        yield
    finally:
        os.close(fd)
