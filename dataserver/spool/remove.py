"""Removing an acknowledged file from the drop directory, and never another one with its name.

A committed file may be replaced by a new upload of the same name at any moment.  "Check, then
unlink by name" would leave a window between the two: only microseconds of work, but a thread may
lose the interpreter there for milliseconds, and would then unlink a packet that was never read.
So a file is removed in three steps:

1. rename it to a private directory on the same file system.  From now on no other process can
   put another file in its place, and an upload under the old name makes a new file;
2. check again: inode, size and modification time must be those of the file that was read.
   This shows an upload that opened the old file before the rename and has truncated or written to
   it by now.  Such a file is put back under its name (never over a file there);
3. unlink it.

What remains is a program that opened the file before step 1 and writes to it only after step 2.
For one that truncates when it opens, that window is nanoseconds; scp does not truncate, so there
it is the time between its open and its first write, a network round trip.  No other program can
close that window; it takes a packet of the same name (agent and number) with different content
in that time.  The same packet sent again is in the ledger, whatever happens to its file.

The rename does not claim a packet: it happens only after the commit, so it is still the lock that
owns the folder.  A crash between 1 and 3 leaves the file in the private directory;
:meth:`Removal.recover` puts it back at the next start, and the ledger recognizes it (a different
packet is stored).  If the private directory is on another file system or mount, or if the rename
fails (on a full disk only unlinking works), the file is checked and unlinked in place, with the
window described first.
"""

from __future__ import annotations

import os
from pathlib import Path

from dataserver.failpoints import reach
from dataserver.spool.files import make_directory, put_back, rename_new, same_mount, unlink_if_there


def same_stat(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether both are of the same, unchanged file."""
    return (one.st_ino, one.st_size, one.st_mtime_ns) == (
        other.st_ino,
        other.st_size,
        other.st_mtime_ns,
    )


class Removal:
    """Removes files through the private directory ``path``, created for the first one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None
        self._usable = True

    def remove(self, name: str, expected: os.stat_result, *, dir_fd: int) -> bool:
        """Remove ``name`` if it still is the file of ``expected``.

        Returns False if another file has taken its place; that one is left there.
        """
        if not self._move_aside(name, dir_fd):
            return _check_and_unlink(name, expected, dir_fd=dir_fd)
        reach("inside-done")
        private = self._descriptor()
        if same_stat(os.stat(name, dir_fd=private, follow_symlinks=False), expected):
            os.unlink(name, dir_fd=private)
            return True
        put_back(name, name, src_fd=private, dst_fd=dir_fd)
        return False

    def recover(self, *, dir_fd: int) -> int:
        """Put back the files that a crash left here; returns their number."""
        if not self.path.is_dir():
            return 0
        private = self._descriptor()
        names = os.listdir(private)
        for name in names:
            put_back(name, name, src_fd=private, dst_fd=dir_fd)
        return len(names)

    def close(self) -> None:
        """Release the descriptor; the next use opens it again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _descriptor(self) -> int:
        if self._fd is None:
            self._fd = make_directory(self.path)
        return self._fd

    def _move_aside(self, name: str, dir_fd: int) -> bool:
        if not self._usable:
            return False
        try:
            if self._fd is None:
                # Checked once, not for every file: mounts do not change.
                self._usable = same_mount(self._descriptor(), dir_fd)
            if self._usable:
                # Never over a file there: that is one which could not be put back.
                rename_new(name, name, src_fd=dir_fd, dst_fd=self._descriptor())
        except OSError:
            return False
        return self._usable


def _check_and_unlink(name: str, expected: os.stat_result, *, dir_fd: int) -> bool:
    try:
        found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return True
    if not same_stat(found, expected):
        return False
    unlink_if_there(name, dir_fd=dir_fd)
    return True
