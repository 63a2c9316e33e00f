"""The last lines of a log that is rotated, and those that come."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

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


def follow(
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
