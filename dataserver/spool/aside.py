"""Setting a file of the drop directory aside, so that a crash at any point loses nothing.

1. The content is made durable; on another file system or mount it is copied to ``ID.part`` first.
2. The reason ``ID.json``, and ``ID.checksum`` where there was one, are made durable.
3. The content appears as ``ID.data``: the file itself is renamed, or the copy.
4. Of a copy, the original is removed from the drop directory.

Up to 3 the file lies in the drop directory and a JSON without data is a half, which
``Rejected.recover`` removes; from 3 on everything is in the folder.  Between 3 and 4 the
packet is in both places, and is rejected once more after a crash.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from dataserver.failpoints import reach
from dataserver.spool.checksums import read_checksum
from dataserver.spool.files import checksum_name
from dataserver.spool.leaving import same_stat
from dataserver.spool.moves import (
    copy_durably,
    put_back,
    rename_new,
    same_mount,
    sync_file,
    unlink_if_there,
    write_durably,
)
from dataserver.spool.reasons import RejectedPacket

#: The JSON goes last, so that what a crash leaves of a removal is a half.
_SUFFIXES = (".data", ".checksum", ".part", ".json.part", ".checksum.part", ".json")


def set_aside(
    rejected: RejectedPacket,
    expected: os.stat_result,
    *,
    dir_fd: int,
    folder: int,
    remove: Callable[[], bool],
) -> bool:
    """Bring the file ``rejected.name`` of ``dir_fd`` into ``folder``; True when it is there.

    ``expected`` is how the file looked when it was judged.  ``remove`` takes the original
    away where it had to be copied, and says whether it was still the same.  False: the file
    had been replaced, the new one is left, nothing is kept.  Raises OSError; then nothing is
    kept either, and the file is where it was.
    """
    near = same_mount(folder, dir_fd)
    name, rid = rejected.name, rejected.id
    try:
        if not _prepare(rejected, expected, near=near, dir_fd=dir_fd, folder=folder):
            erase(rid, folder)
            return False
        reach("inside-reject")
        if near:
            return _rename(rejected, expected, dir_fd=dir_fd, folder=folder)
        os.rename(f"{rid}.part", f"{rid}.data", src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        _withdraw(rid, folder)
        raise
    os.fsync(folder)
    if remove():
        unlink_if_there(checksum_name(name), dir_fd=dir_fd)
    return True


def erase(rid: str, folder: int) -> None:
    """Remove every file of an id, those that a crash left included."""
    for suffix in _SUFFIXES:
        unlink_if_there(f"{rid}{suffix}", dir_fd=folder)


def _withdraw(rid: str, folder: int) -> None:
    """Take back what was begun, unless the content has come already: it may be the only one."""
    if f"{rid}.data" not in os.listdir(folder):
        erase(rid, folder)


def _prepare(
    rejected: RejectedPacket, expected: os.stat_result, *, near: bool, dir_fd: int, folder: int
) -> bool:
    """Steps 1 and 2; False where the copy is not that of the expected file."""
    name, rid = rejected.name, rejected.id
    if near:
        sync_file(name, dir_fd=dir_fd)
    else:
        copied = copy_durably(name, f"{rid}.part", src_fd=dir_fd, dst_fd=folder)
        if not same_stat(copied, expected):
            return False
    checksum = read_checksum(checksum_name(name), dir_fd=dir_fd)
    if checksum is not None:
        write_durably(f"{rid}.checksum", checksum, dir_fd=folder)
    write_durably(f"{rid}.json", rejected.to_json(), dir_fd=folder)
    os.fsync(folder)
    return True


def _rename(
    rejected: RejectedPacket, expected: os.stat_result, *, dir_fd: int, folder: int
) -> bool:
    """Step 3 within one file system; puts the file back where it is another one."""
    name, data = rejected.name, f"{rejected.id}.data"
    rename_new(name, data, src_fd=dir_fd, dst_fd=folder)
    if not same_stat(os.stat(data, dir_fd=folder, follow_symlinks=False), expected):
        put_back(data, name, src_fd=folder, dst_fd=dir_fd)
        erase(rejected.id, folder)
        return False
    unlink_if_there(checksum_name(name), dir_fd=dir_fd)
    return True
