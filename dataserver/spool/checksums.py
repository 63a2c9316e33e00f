"""The ``.checksum`` files of 1.x agents: does the packet match what was announced for it?

Such a file holds the output of ``md5sum`` or "No valid checksum", and is uploaded before the
packet.  One that is missing or names no checksum says nothing against the packet.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat

from dataserver.errors import PacketError, Reason
from dataserver.spool.moves import READ_FLAGS

#: No checksum file is longer than a file name and a sum; more is not read.
LONGEST = 4096

_MD5 = re.compile(rb"(?<![0-9A-Za-z])[0-9A-Fa-f]{32}(?![0-9A-Za-z])")
_LINE_ENDS = (b"", b"\n", b"\r\n")


def read_checksum(name: str, *, dir_fd: int) -> bytes | None:
    """The first bytes of a checksum file; None where there is none or it is no regular file.

    Raises OSError where it is there and cannot be read.
    """
    try:
        if not stat.S_ISREG(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
            return None
        fd = os.open(name, READ_FLAGS, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    try:
        return os.read(fd, LONGEST)
    finally:
        os.close(fd)


def verify(content: bytes, checksum: bytes | None) -> None:
    """Raise PacketError (``checksum``) where the sum announced is not that of the content.

    The packet is complete with its closing tag; the line end after it may still be on its
    way, so the sum may also be that of the content with a line end added.
    """
    announced = _MD5.search(checksum or b"")
    if announced is None:
        return
    wanted = announced[0].decode("ascii").lower()
    sums = [hashlib.md5(content + end, usedforsecurity=False).hexdigest() for end in _LINE_ENDS]
    if wanted not in sums:
        raise PacketError(
            Reason.CHECKSUM, f"the MD5 sum is {sums[0]}, its checksum file says {wanted}"
        )
