"""The bytes of a file: reading them whole, and telling one content from another."""

from __future__ import annotations

import os
import zlib


def read_whole(fd: int, size: int) -> bytes:
    """All bytes up to ``size`` and one more, so that a file that grew is seen to have grown."""
    content = os.read(fd, size + 1)
    if len(content) == size:
        return content
    pieces = [content]
    left = size + 1 - len(content)
    while left > 0 and (piece := os.read(fd, left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def mark_of(content: bytes) -> int:
    """What tells one content from another, whatever white space follows the closing tag.

    The same in every process (Python's own hash is not): one reads a file, another asks
    whether it still is what was read.  A CRC takes a third of the time of a cryptographic
    hash, and is asked only about an inode that looks the same but was written a moment ago.
    """
    return zlib.crc32(content.rstrip())
