"""The names and places of systemd's files for the instances, and running systemd's programs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from dataserver.errors import DataserverError

#: The folder of an administrator's units (systemd.unit(5)).
UNITS = Path("/etc/systemd/system")
#: All instances together.
TARGET = "dataserver.target"
#: Runs all instances, each as its NAME.
TEMPLATE = UNITS / "dataserver@.service"
#: Directories, their owners and modes (tmpfiles.d(5)).
TMPFILES_FILE = Path("/etc/tmpfiles.d/dataserver.conf")
#: Exists while systemd runs the machine (sd_booted(3)).
RUNS = Path("/run/systemd/system")


def unit(name: str) -> str:
    """The unit of an instance; the name contains no character that systemd would escape."""
    return f"dataserver@{name}.service"


def drop_in_path(name: str) -> Path:
    """The drop-in with the paths outside of the home that the instance ``name`` may reach."""
    return UNITS / f"{unit(name)}.d" / "paths.conf"


# -- running systemd's programs --

#: Seconds after which a program that talks to systemd counts as hanging.
TIMEOUT = 30.0


def run(*command: str, check: bool = True) -> str:
    """The output of ``command``.

    Raises DataserverError if there is no such program, if it does not end in time, or, with
    ``check``, if it fails.
    """
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=TIMEOUT,
            env=environment(),
        )
    except OSError as exc:
        raise DataserverError(
            f"{command[0]} cannot be run: {exc.strerror}", hint="install systemd"
        ) from exc
    except subprocess.TimeoutExpired as exc:
        raise DataserverError(
            f"`{' '.join(command)}` did not answer within {TIMEOUT:g} s",
            hint="check systemd itself: `systemctl status`",
        ) from exc
    if check and done.returncode:
        raise failed(command[:2], done.stderr, done.returncode)
    return done.stdout.decode("utf-8", "surrogateescape")


def failed(command: tuple[str, ...], stderr: bytes, code: int) -> DataserverError:
    """The error of a program that ended with ``code`` and printed ``stderr``."""
    message = " ".join(stderr.decode("utf-8", "replace").split())[:500]
    return DataserverError(
        f"`{' '.join(command)}` failed: {message or f'exit code {code}'}",
        hint=None if os.geteuid() == 0 else "it may need root: try it with sudo",
    )


def environment() -> dict[str, str]:
    """Our environment, with the language whose output we parse, and no pager."""
    return {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
