"""The scripts that keepalived runs, rendered for a test and run under several shells."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataserver.config.paths import Home, Paths
from dataserver.templates import render
from dataserver.vrrp.health import Checked, Limits, read_result
from tests.support.waiting import PATIENCE

#: What /bin/sh is on one system or another.
SHELLS = {
    "dash": ["dash"],
    "busybox": ["busybox", "sh"],
    "bash": ["bash", "--posix"],
}
SCRIPTS = ("check-health", "check-drop")


@dataclass(frozen=True)
class Watched:
    """An instance as the templates want it."""

    name: str
    var: str
    data_in: str


class Checks:
    """Both scripts for the instances ``names`` of a home; ``data_in`` where it is elsewhere.

    With ``uptime`` the machine has been up for so many seconds whenever they run.
    """

    def __init__(
        self,
        home: Home,
        names: Sequence[str] = ("main",),
        *,
        limits: Limits | None = None,
        data_in: Mapping[str, Path] | None = None,
        uptime: float | None = None,
    ) -> None:
        self.home = home
        self.names = names
        self.limits = limits or Limits()
        self.state_dir = home.root / "state"
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self._data_in = dict(data_in or {})
        self._clock = "/proc/uptime"
        if uptime is not None:
            self._clock = str(self.state_dir.with_name("uptime"))
            Path(self._clock).write_text(f"{uptime:.2f} 0.00\n")
        for name in names:
            self.data_in(name).mkdir(parents=True, exist_ok=True)
            self.paths(name).var.mkdir(parents=True, exist_ok=True)
        self._write()

    def paths(self, name: str = "main") -> Paths:
        return Paths(self.home.root, name)

    def data_in(self, name: str = "main") -> Path:
        return self._data_in.get(name, self.paths(name).folder / "data_in")

    def run(
        self,
        script: str,
        shell: str = "dash",
        *,
        path: str | None = None,
        wrapper: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run one as keepalived would; ``path`` is where it finds programs."""
        program = [shutil.which(SHELLS[shell][0]) or SHELLS[shell][0], *SHELLS[shell][1:]]
        return subprocess.run(
            [*wrapper, *program, str(self.home.root / script)],
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
            env={"PATH": path or os.environ["PATH"]},
            timeout=PATIENCE,
        )

    def result(self, script: str = "check-health") -> Checked | None:
        """What it left behind."""
        return read_result(script, self.state_dir)

    def _write(self) -> None:
        watched = [
            Watched(name, str(self.paths(name).var), str(self.data_in(name))) for name in self.names
        ]
        for script in SCRIPTS:
            text = render(
                Home(Path("/nonexistent")),
                f"keepalived/templates/{script}.j2",
                instances=watched,
                disk_warn_percent=self.limits.warn,
                disk_ok_percent=self.limits.ok,
                state_dir=str(self.state_dir),
            )
            path = self.home.root / script
            assert "< /proc/uptime" in text
            path.write_text(text.replace("< /proc/uptime", f"< {shlex.quote(self._clock)}"))
            path.chmod(0o755)
