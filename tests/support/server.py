"""A data server as a user has it: a home, the installed command, and what can be seen outside.

:class:`Place`   a home with instances; packets are dropped there, rejected ones listed
:class:`Server`  `dataserver run` for one of its instances: started, killed, waited for

Every wait is bounded, and says at its end what the server's log said last.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from dataserver.config.paths import Home, Paths
from dataserver.failpoints import VARIABLE
from dataserver.runtime.heartbeat import Phase
from dataserver.spool.rejected import Rejected, RejectedPacket
from tests.support.commands import COMMAND
from tests.support.waiting import PATIENCE, wait_until

__all__ = ["PATIENCE", "Place", "Server"]

_numbers = itertools.count()


class Place:
    """A home made for a test; ``settings`` go into its ``dataserver.toml``."""

    def __init__(self, root: Path, database: str, **settings: object) -> None:
        self.home = Home(root)
        self.home.root.mkdir(parents=True, exist_ok=True)
        self._settings: dict[str, object] = {
            "database": database,
            "timezone": "UTC",
            "settle": 0,
            "scan_interval": 0.2,
            **settings,
        }
        self.configure()
        self.add("main")

    def configure(self, **settings: object) -> None:
        """Change settings in ``dataserver.toml``; a running server does not notice by itself."""
        self._settings |= settings
        # JSON's texts, numbers and booleans are TOML's too.
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in self._settings.items()]
        self.home.config.write_text("".join(lines), encoding="utf-8")

    def add(self, name: str, data_in: str = "data_in") -> Paths:
        """Make another instance; ``data_in`` is relative to its folder."""
        paths = self.paths(name)
        paths.folder.mkdir(parents=True)
        paths.config.write_text(f"data_in = {json.dumps(data_in)}\n", encoding="utf-8")
        (paths.folder / data_in).mkdir(exist_ok=True)
        return paths

    def paths(self, name: str = "main") -> Paths:
        return self.home.instance(name)

    def data_in(self, name: str = "main") -> Path:
        return self.paths(name).folder / "data_in"

    def drop(self, name: str | bytes, content: bytes, *, instance: str = "main") -> Path:
        """Put a file into the drop directory, all at once, as a careful uploader does."""
        folder = self.data_in(instance)
        part = folder / f".part-{next(_numbers)}"
        part.write_bytes(content)
        target = folder / os.fsdecode(name)
        part.rename(target)
        return target

    def rejected(self, instance: str = "main") -> list[RejectedPacket]:
        """What was set aside, oldest first."""
        return list(Rejected(self.paths(instance).rejected).list())

    def packets_left(self, instance: str = "main") -> list[str]:
        """The packets that lie in the drop directory and, after a crash, on their way out."""
        folders = (self.data_in(instance), self.paths(instance).var / "leaving")
        names = (os.listdir(folder) for folder in folders if folder.is_dir())
        return sorted(name for some in names for name in some if name.endswith(".data"))


class Server:
    """One process of `dataserver run`; it dies with the test's process, however that ends.

    ``wrapper`` is a command line put before it; ``environment`` is added to ours.
    """

    def __init__(
        self,
        place: Place,
        instance: str = "main",
        *,
        environment: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        self.place = place
        self.paths = place.paths(instance)
        self.instance = instance
        self.process: subprocess.Popen[bytes] | None = None
        self._environment = dict(environment or {})
        self._wrapper = wrapper
        self._log = place.home.root / f"{instance}.log"

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.kill()

    # -- life ------------------------------------------------------------------

    def start(self, *, failpoint: str | None = None) -> None:
        """Start it, at once; ``failpoint`` as :mod:`dataserver.failpoints` has it."""
        assert not self.running, "it is running"
        ours = {k: v for k, v in os.environ.items() if not k.startswith("DATASERVER_")}
        environment = {**ours, **self._environment}
        if failpoint is not None:
            environment[VARIABLE] = failpoint
        command = [*self._wrapper, str(COMMAND), "--home", str(self.place.home.root)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command, "run", self.instance],
                env=environment,
                cwd=self.place.home.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """SIGKILL, as a crash; harmless where it is dead already."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to leave and wait for that; its exit code."""
        self.send(number)
        return self.wait_exit()

    def wait_exit(self, seconds: float = PATIENCE) -> int:
        """Its exit code, once it left."""
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not leave:\n{self.log[-2000:]}") from None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    # -- what can be seen --------------------------------------------------------

    @property
    def log(self) -> str:
        """All that it said, in every one of its lives."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def messages(self) -> list[dict[str, Any]]:
        """The JSON lines of its log."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    @property
    def status(self) -> dict[str, Any]:
        """The status file of the present process, empty before it wrote one."""
        found = _json(self.paths.status)
        return found if found.get("pid") == self.pid else {}

    def _beat(self) -> dict[str, Any]:
        """The heartbeat of the present process, written once a second; empty before the first."""
        found = _json(self.paths.heartbeat)
        return found if found.get("pid") == self.pid else {}

    @property
    def peak_memory(self) -> int:
        """The most memory that it had resident until now, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def wait(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        """Wait until ``condition()`` is true; fail when that takes too long or the server dies."""
        wait_until(
            condition,
            lambda: f"{what}\n{self.log[-2000:]}",
            alive=lambda: self.running,
            seconds=seconds,
            pause=0.005,
        )

    def wait_phase(self, *phases: Phase, since: float = 0.0) -> None:
        """Wait until it is in one of the phases, which began after ``since`` (epoch seconds)."""

        def is_in_phase() -> bool:
            beat = self._beat()
            return beat.get("phase") in phases and beat["phase_since"] > since

        self.wait(is_in_phase, f"phase {' or '.join(phases)}")

    def wait_ready(self) -> None:
        """Wait until it has done something, if only looked into its drop directory."""
        # Its status is written beside its work, and so before that begins.
        early = (None, Phase.STARTING, Phase.SCANNING)
        self.wait(lambda: self.status.get("phase") not in early, "its first look")

    def wait_counted(self, counter: str, count: int) -> None:
        """Wait until the status, which is written once a second, says so many."""
        self.wait(
            lambda: self.status.get("counters", {}).get(counter) == count, f"{count} {counter}"
        )

    def wait_taken(self, seconds: float = PATIENCE) -> None:
        """Wait until every packet has left the drop directory."""
        self.wait_ready()
        self.wait(
            lambda: not self.place.packets_left(self.instance), "an empty drop directory", seconds
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
