"""`dataserver up` over a place, and what can be seen of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from dataserver.fleet.model import Managed, RunState, SupervisorState, supervisor_file
from dataserver.runtime.heartbeat import process_start
from tests.support.server import Place
from tests.support.waiting import PATIENCE, wait_until

_MAIN = """
{before}
import sys
from dataserver.fleet.supervision import loop, supervisor
for name, value in {constants!r}.items():
    module = supervisor if hasattr(supervisor, name) else loop
    assert hasattr(module, name)
    setattr(module, name, value)
from dataserver.cli import main
main()
"""


class Fleet:
    """One process of `dataserver up`; it dies with the test's process, however that ends.

    ``constants`` replace those of the modules in ``fleet/supervision``, such as limits;
    ``before`` is run in its process before everything else;
    ``piped``: its output goes into a pipe instead of a file; ``wrapper`` is a command line put
    before it.
    """

    def __init__(
        self,
        place: Place,
        *,
        constants: Mapping[str, object] | None = None,
        before: str = "",
        environment: Mapping[str, str] | None = None,
        piped: bool = False,
        wrapper: Sequence[str] = (),
    ) -> None:
        self._piped = piped
        self._wrapper = wrapper
        self.place = place
        self.process: subprocess.Popen[bytes] | None = None
        self._before = before
        self._constants = dict(constants or {})
        self._environment = dict(environment or {})
        self._log = place.home.root / "up.log"

    def __enter__(self) -> Fleet:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.kill()

    # -- life ------------------------------------------------------------------

    def start(self) -> None:
        """Start it, at once."""
        ours = {k: v for k, v in os.environ.items() if not k.startswith("DATASERVER_")}
        script = _MAIN.format(before=self._before, constants=self._constants)
        up = [sys.executable, "-P", "-c", script, "--home", str(self.place.home.root), "up"]
        command = [*self._wrapper, *up]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                env={**ours, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.PIPE if self._piped else log,
            )

    def kill(self) -> None:
        """SIGKILL, as a crash; harmless where it is dead already."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """Ask it to leave and wait for that; its exit code."""
        self.send(signal.SIGTERM)
        return self.wait_exit()

    def wait_exit(self) -> int:
        assert self.process is not None
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not leave:\n{self.log[-3000:]}") from None

    # -- what can be seen --------------------------------------------------------

    @property
    def log(self) -> str:
        """All that it said, in every one of its lives."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def managed(self, name: str = "main") -> Managed | None:
        """What the present supervisor says of an instance."""
        state = SupervisorState.read(supervisor_file(self.place.home))
        if state is None or self.process is None or state.pid != self.process.pid:
            return None
        return state.instances.get(name)

    def pid(self, name: str = "main") -> int:
        """The process of an instance that has one."""
        managed = self.managed(name)
        assert managed is not None
        assert managed.pid is not None
        return managed.pid

    def wait(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        """Wait until ``condition()`` is true; fail when that takes too long or it ends."""
        process = self.process
        assert process is not None
        wait_until(
            condition,
            lambda: f"{what}\n{self.log[-3000:]}",
            alive=lambda: process.poll() is None,
            seconds=seconds,
        )

    def wait_state(self, state: RunState, *names: str) -> None:
        """Wait until all of ``names`` are in ``state``."""

        def all_are() -> bool:
            found = [self.managed(name) for name in names or ("main",)]
            return all(each is not None and each.state is state for each in found)

        self.wait(all_are, f"{', '.join(names) or 'main'} {state}")

    def wait_running(self, *names: str, but_not: int | None = None) -> None:
        """Wait until all of ``names`` run, none as the process ``but_not``."""
        self.wait_state(RunState.RUNNING, *names)
        if but_not is not None:
            self.wait(
                lambda: all(
                    (managed := self.managed(name)) is not None
                    and managed.state is RunState.RUNNING
                    and managed.pid != but_not
                    for name in names
                ),
                f"another process than {but_not}",
            )

    def wait_taken(self, *names: str) -> None:
        """Wait until every packet has left the drop directories of ``names``."""
        for name in names or ("main",):
            self.wait(lambda name=name: not self.place.packets_left(name), f"{name} to be empty")


def descendants(home: Path) -> set[int]:
    """The processes that work on a home, by their command lines."""
    mark = os.fsencode(home)
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if mark in words and process_start(int(entry.name)) is not None:
            found.add(int(entry.name))
    return found
