"""Uploading made-up packets into a drop directory: complete, under their final names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from dataserver.demo.model import File


class Uploader:
    """Writes files into ``data_in``; ``spare`` is our own folder on the same file system."""

    def __init__(self, data_in: Path, spare: Path) -> None:
        self._data_in = data_in
        self._spare = spare
        spare.mkdir(parents=True, exist_ok=True)

    def send(self, files: Iterable[File]) -> None:
        """Upload like a careful agent: write elsewhere, then rename."""
        for file in files:
            part = self._spare / "part"
            part.write_bytes(file.content)
            part.rename(self._data_in / file.name)

    def fill(self, files: Iterable[File]) -> None:
        """Upload files of the past, with their modification times.

        Their names are links to a few files of ours, which are reused once the server has unlinked
        them: creating and freeing tens of thousands of inodes takes ext4 half a millisecond each.
        """
        for place, file in enumerate(files):
            ours = self._spare / f"{place}"
            fd = _open_unshared(ours)
            try:
                os.write(fd, file.content)
                os.ftruncate(fd, len(file.content))
                os.utime(fd, (file.modified, file.modified))
            finally:
                os.close(fd)
            # Replaces a file of that name from an earlier run.
            part = self._spare / "part"
            os.link(ours, part)
            part.rename(self._data_in / file.name)

    def close(self) -> None:
        """Remove our folder."""
        shutil.rmtree(self._spare, ignore_errors=True)


def _open_unshared(path: Path) -> int:
    """The file, opened for writing; a new one if it still has another name (was rejected)."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o640)
    if os.fstat(fd).st_nlink == 1:
        return fd
    os.close(fd)
    path.unlink()
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
