"""The keys with which agents upload: ``uploads/authorized_keys``, read and changed.

A change replaces the file whole, so that sshd sees the old or the new one, and two changes at
the same time come one after the other.  Lines that are not ours stay as they are.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dataserver.errors import UsageError
from dataserver.home import Home
from dataserver.uploads.sshkeys import Entry

_HEAD = "# Keys with which agents may upload. Written by `dataserver uploads key`.\n"


def keys_file(home: Home) -> Path:
    """Where sshd finds the keys of the upload accounts."""
    return uploads_folder(home) / "authorized_keys"


def uploads_folder(home: Home) -> Path:
    """``HOME/uploads``: what lets agents in."""
    return home.root / "uploads"


class Keys:
    """The keys in one file, which need not exist."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self) -> list[Entry]:
        """All keys, in order; OSError where the file may not be read."""
        return [entry for line in self._lines() if (entry := Entry.parse(line))]

    def not_understood(self) -> list[int]:
        """The numbers (from 1) of lines that are neither empty, nor a comment, nor a key."""
        return [
            number
            for number, line in enumerate(self._lines(), 1)
            if line.strip() and not line.lstrip().startswith("#") and Entry.parse(line) is None
        ]

    def add(self, entry: Entry) -> None:
        """Add a key; UsageError where its name or the key itself is there already."""
        with self._changing():
            for other in self.entries():
                if other.name == entry.name:
                    raise UsageError(
                        f"there is a key {entry.name!r} already",
                        hint="choose another name, or remove that one first",
                    )
                if other.key.fingerprint == entry.key.fingerprint:
                    raise UsageError(
                        f"this key is there already, as {other.name!r}",
                        hint="each agent, or group of agents, has a key of its own",
                    )
            self._write([*self._lines(), entry.line])

    def remove(self, name: str) -> Entry:
        """Take a key away; UsageError where there is none, or several, of this name."""
        with self._changing():
            lines = self._lines()
            found = [
                (number, entry)
                for number, line in enumerate(lines)
                if (entry := Entry.parse(line)) and entry.name == name
            ]
            if len(found) != 1:
                what = f"{len(found)} keys are" if found else "no key is"
                raise UsageError(
                    f"{what} called {name!r} in {self._path}",
                    hint="`dataserver uploads key list` shows all",
                )
            number, entry = found[0]
            self._write([*lines[:number], *lines[number + 1 :]])
            return entry

    def create(self) -> bool:
        """Make the file if there is none; whether it was made."""
        with self._changing():
            if self._path.exists():
                return False
            self._write([])
            return True

    def _lines(self) -> list[str]:
        try:
            # What others wrote, in any encoding and with any line ends, stays as it is.
            text = self._path.read_bytes().decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return []
        # Not splitlines(), which knows line ends that sshd does not.
        return text.removesuffix("\n").split("\n") if text else []

    @contextmanager
    def _changing(self) -> Iterator[None]:
        self._path.parent.mkdir(mode=0o755, exist_ok=True)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
            os.fsync(folder)
        finally:
            os.close(folder)

    def _write(self, lines: list[str]) -> None:
        text = "".join(f"{line}\n" for line in lines) or _HEAD
        fd, temporary = tempfile.mkstemp(prefix=".authorized_keys.", dir=self._path.parent)
        try:
            with open(fd, "wb") as file:
                file.write(text.encode("utf-8", "surrogateescape"))
                file.flush()
                os.fchmod(fd, 0o644)
                os.fsync(fd)
            os.replace(temporary, self._path)
        except BaseException:
            os.unlink(temporary)
            raise
