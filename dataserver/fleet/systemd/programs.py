"""Running systemd's programs: argument lists, a time limit, one clear line where one fails."""

from __future__ import annotations

import os
import subprocess

from dataserver.errors import DataserverError

#: Seconds after which a program that talks to systemd hangs.
TIMEOUT = 30.0


def run(*command: str, check: bool = True) -> str:
    """What ``command`` prints.

    Raises DataserverError where there is no such program, where it does not end in time, or
    (``check``) where it says that it failed.
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
            f"`{' '.join(command)}` gives no answer for {TIMEOUT:g} s",
            hint="look at systemd itself: `systemctl status`",
        ) from exc
    if check and done.returncode:
        raise failed(command[:2], done.stderr, done.returncode)
    return done.stdout.decode("utf-8", "surrogateescape")


def failed(command: tuple[str, ...], stderr: bytes, code: int) -> DataserverError:
    """The error of a program that ended with ``code`` and said ``stderr``."""
    said = " ".join(stderr.decode("utf-8", "replace").split())[:500]
    return DataserverError(
        f"`{' '.join(command)}` failed: {said or f'exit code {code}'}",
        hint=None if os.geteuid() == 0 else "it may need root: try it with sudo",
    )


def environment() -> dict[str, str]:
    """Our environment, with the language in which we read answers, and no pager."""
    return {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
