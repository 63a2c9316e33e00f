"""How made-up packets get into a drop directory: whole, under their final names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from dataserver.demo.model import File


class Uploader:
    """Puts files into ``data_in``; ``spare`` is a folder of ours on the same file system."""

    def __init__(self, data_in: Path, spare: Path) -> None:
        self._data_in = data_in
        self._spare = spare
        spare.mkdir(parents=True, exist_ok=True)

    def send(self, files: Iterable[File]) -> None:
        """As a careful agent: written elsewhere, then renamed."""
        for file in files:
            part = self._spare / "part"
            part.write_bytes(file.content)
            part.rename(self._data_in / file.name)

    def fill(self, files: Iterable[File]) -> None:
        """The same for files of the past, with their times.

        Their names are links to a few files of ours, which are written again once the server
        has let go of them: tens of thousands of new inodes, each of which is freed in a moment,
        take ext4 half a millisecond apiece.
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
            # One of that name that an earlier run left is this one.
            part = self._spare / "part"
            os.link(ours, part)
            part.rename(self._data_in / file.name)

    def close(self) -> None:
        """Remove what is ours."""
        shutil.rmtree(self._spare, ignore_errors=True)


def _open_unshared(path: Path) -> int:
    """The file, opened for writing; a new one where it still has another name (set aside)."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o640)
    if os.fstat(fd).st_nlink == 1:
        return fd
    os.close(fd)
    path.unlink()
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
