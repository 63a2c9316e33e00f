"""Instances run by ``dataserver up``: controlled through their folders, read from its files."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dataserver.config.paths import Home
from dataserver.errors import DataserverError
from dataserver.fleet import by_hand
from dataserver.fleet.model import (
    Instance,
    Managed,
    SupervisorState,
    log_file,
    supervisor_file,
)
from dataserver.fleet.registry import disable, enable
from dataserver.spool.lock import holder

#: Seconds between two checks for new lines.
_PAUSE = 0.2
#: Bytes read at once.
_BLOCK = 1 << 16
#: A longer line (bytes) is split.
_LONGEST = 1 << 20


class BySupervisor:
    """The :class:`dataserver.fleet.model.Manager` of a home in which ``dataserver up`` runs."""

    name = "dataserver up"

    def __init__(self, home: Home) -> None:
        self._home = home

    def alive(self) -> bool:
        """Whether a supervisor runs, as far as this user can see."""
        try:
            state = self._state()
        except DataserverError:
            return False
        return state is not None and state.alive

    def start(self, instance: Instance) -> None:
        """Enable the instance; the supervisor notices within half a second."""
        with _changing(instance):
            enable(instance.paths)

    def stop(self, instance: Instance) -> None:
        """Disable the instance."""
        with _changing(instance):
            disable(instance.paths)

    def restart(self, instance: Instance) -> int | None:
        """Signal its process to end: the supervisor then starts a new one at once.

        Its folder is touched as well: so the supervisor knows that the end was requested.
        """
        managed = self.states([instance]).get(instance.name)
        with _changing(instance):
            running = instance.enabled and holder(instance.paths.var)
            if not running:
                # One that is only starting reads its files again anyway.
                enable(instance.paths)
                return None
            if managed is None or managed.pid != running:
                raise DataserverError(
                    f"{instance.name} is run by process {running}, which is not supervised",
                    hint=f"`dataserver instances stop {instance.name}`, then start it",
                )
            with suppress(PermissionError):
                enable(instance.paths)
            return by_hand.send(instance.paths, signal.SIGTERM)

    def states(self, instances: Sequence[Instance]) -> dict[str, Managed]:
        """The states that the supervisor last wrote; none if it does not run."""
        state = self._state()
        if state is None or not state.alive:
            return {}
        names = {instance.name for instance in instances}
        return {name: managed for name, managed in state.instances.items() if name in names}

    def follow(self, instance: Instance, lines: int, *, follow: bool) -> Iterator[str]:
        """The lines of the log that the supervisor writes for each instance."""
        path = log_file(instance.paths)
        try:
            yield from follow_files(path, lines) if follow else last(path, lines)
        except OSError as exc:
            raise DataserverError(f"cannot read {exc.filename or path}: {exc.strerror}") from exc

    def _state(self) -> SupervisorState | None:
        path = supervisor_file(self._home)
        try:
            return SupervisorState.read(path)
        except OSError as exc:
            raise DataserverError(f"cannot read {path}: {exc.strerror}") from exc


@contextmanager
def _changing(instance: Instance) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise DataserverError(
            f"{instance.name} cannot be changed: {exc.filename or instance.paths.config}: "
            f"{exc.strerror}",
            hint=f"{instance.paths.folder} has to be writable for this user",
        ) from exc


# -- reading a log that is rotated, and following it --


def last(path: Path, count: int) -> Iterator[str]:
    """The last ``count`` lines of the file and of ``PATH.1``, its older part; OSError."""
    file = _Followed(path)
    try:
        yield from deque([*_before(path, file), *file.more(), *file.rest()], maxlen=count)
    finally:
        file.close()


def follow_files(
    path: Path, count: int, *, pause: Callable[[], object] = lambda: time.sleep(_PAUSE)
) -> Iterator[str]:
    """The last ``count`` lines, then new ones, for ever; OSError.

    The file may be missing, rotated, or emptied.  ``pause`` waits a moment.
    """
    file = _Followed(path)
    try:
        yield from deque([*_before(path, file), *file.more()], maxlen=count)
        while True:
            pause()
            yield from file.more()
    finally:
        file.close()


class _Followed:
    """A path, and the file that was last opened there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None
        self._at = 0
        self._rest = b""
        self._open()

    def is_at(self, path: Path) -> bool:
        """Whether this file is at ``path`` now."""
        try:
            return self._fd is not None and os.path.samestat(os.stat(path), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def more(self) -> Iterator[str]:
        """The lines that were written since the last call."""
        # Checked before reading: the old file is complete once the new one exists.
        replaced = self._path.exists() and not self.is_at(self._path)
        yield from self._read()
        if replaced:
            yield from self.rest()
            self.close()
            self._open()
            yield from self._read()

    def rest(self) -> Iterator[str]:
        """The beginning of an incomplete line."""
        if self._rest:
            yield _text(self._rest)
            self._rest = b""

    def close(self) -> None:
        """Release the descriptor."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> None:
        self._at = 0
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._fd = None

    def _read(self) -> Iterator[str]:
        if self._fd is None:
            return
        if os.fstat(self._fd).st_size < self._at:
            self._at, self._rest = 0, b""
        while block := os.pread(self._fd, _BLOCK, self._at):
            self._at += len(block)
            *lines, self._rest = (self._rest + block).split(b"\n")
            yield from map(_text, lines)
            if len(self._rest) > _LONGEST:
                yield from self.rest()


def _before(path: Path, file: _Followed) -> Iterator[str]:
    """The lines of ``PATH.1``, unless ``file`` has just become that one."""
    older = path.with_name(f"{path.name}.1")
    if file.is_at(older):
        return
    before = _Followed(older)
    try:
        yield from before.more()
    finally:
        before.close()


def _text(line: bytes) -> str:
    """A line as text; bytes that are not UTF-8 as surrogate escapes."""
    return line.decode("utf-8", "surrogateescape")
