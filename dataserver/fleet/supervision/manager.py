"""Instances run by ``dataserver up``: asked through their folders, known by what it writes."""

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

# -- the last lines of a log that is rotated, and those that come

#: Seconds between two looks for more.
_PAUSE = 0.2
#: Bytes read at once.
_BLOCK = 1 << 16
#: A line longer than this (bytes) comes in parts.
_LONGEST = 1 << 20


def last(path: Path, count: int) -> Iterator[str]:
    """The last ``count`` lines of the file and of ``PATH.1``, the part before it; OSError."""
    file = _Followed(path)
    try:
        yield from deque([*_before(path, file), *file.more(), *file.rest()], maxlen=count)
    finally:
        file.close()


def follow_files(
    path: Path, count: int, *, pause: Callable[[], object] = lambda: time.sleep(_PAUSE)
) -> Iterator[str]:
    """The last ``count`` lines, then those that come, for ever; OSError.

    The file may be missing, renamed and made anew, or emptied.  ``pause`` waits a moment.
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
    """A path, and the file that was last found there."""

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
        """The lines that have come since the last call."""
        # Asked before reading on: the old file is complete once the new one is there.
        replaced = self._path.exists() and not self.is_at(self._path)
        yield from self._read()
        if replaced:
            yield from self.rest()
            self.close()
            self._open()
            yield from self._read()

    def rest(self) -> Iterator[str]:
        """The beginning of a line whose end has not come."""
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
    """The lines of ``PATH.1``, unless ``file`` has become that one a moment ago."""
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


# -- manager --


class BySupervisor:
    """The :class:`dataserver.fleet.model.Manager` of a home in which ``dataserver up`` runs."""

    name = "dataserver up"

    def __init__(self, home: Home) -> None:
        self._home = home

    def alive(self) -> bool:
        """Whether it runs, as far as this user can see."""
        try:
            state = self._state()
        except DataserverError:
            return False
        return state is not None and state.alive

    def start(self, instance: Instance) -> None:
        """Have it run; noticed within half a second."""
        with _changing(instance):
            enable(instance.paths)

    def stop(self, instance: Instance) -> None:
        """Have it not run."""
        with _changing(instance):
            disable(instance.paths)

    def restart(self, instance: Instance) -> int | None:
        """Tell its process to leave: the supervisor starts another one at once.

        It is touched as well: that tells one who was asked to leave from one who cannot stay.
        """
        managed = self.states([instance]).get(instance.name)
        with _changing(instance):
            running = instance.enabled and holder(instance.paths.var)
            if not running:
                # One that is only starting reads its files anew without being told to end.
                enable(instance.paths)
                return None
            if managed is None or managed.pid != running:
                raise DataserverError(
                    f"{instance.name} is run by process {running}, which nobody supervises",
                    hint=f"`dataserver instances stop {instance.name}`, then start it",
                )
            with suppress(PermissionError):
                enable(instance.paths)
            return by_hand.send(instance.paths, signal.SIGTERM)

    def states(self, instances: Sequence[Instance]) -> dict[str, Managed]:
        """What it last wrote of them, if it is alive."""
        state = self._state()
        if state is None or not state.alive:
            return {}
        names = {instance.name for instance in instances}
        return {name: managed for name, managed in state.instances.items() if name in names}

    def follow(self, instance: Instance, lines: int, *, follow: bool) -> Iterator[str]:
        """From the log that it keeps for each instance."""
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
