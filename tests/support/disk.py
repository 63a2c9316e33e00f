"""Small file systems in memory, to be filled up."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Mounting needs root, or the right to become it.
ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]


class Disk:
    """A small file system of its own at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, free: int = 0) -> None:
        """Take all room but ``free`` bytes."""
        with self._ballast.open("ab", buffering=0) as ballast, suppress(OSError):
            while self._free() > free:
                ballast.write(bytes(4096))

    def _free(self) -> int:
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def make_room(self) -> None:
        self._ballast.unlink()


@contextmanager
def mounted(path: Path, size: int) -> Iterator[Disk]:
    """A file system of so many bytes in memory, for as long as the block lasts."""
    path.mkdir(parents=True, exist_ok=True)
    options = f"size={size},mode=0777"
    subprocess.run([*ROOT, "mount", "-t", "tmpfs", "-o", options, "none", path], check=True)
    try:
        yield Disk(path)
    finally:
        subprocess.run([*ROOT, "umount", "--lazy", path], check=True)
