"""The two protocols of uploads as a hostile client would speak them, byte by byte, through ssh.

:class:`Sftp`  requests of the SSH file transfer protocol, version 3, and their status
:func:`sink`   what the old protocol of scp answers to given bytes

Source: draft-ietf-secsh-filexfer-02.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from types import TracebackType

from tests.support.waiting import PATIENCE

OK, NO_SUCH_FILE, DENIED, UNSUPPORTED = 0, 2, 3, 8
FAILURE = 4
OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR = range(3, 13)
REMOVE, MKDIR, RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK = range(13, 21)
EXTENDED = 200
_STATUS, _HANDLE = 101, 102
READING, WRITING, CREATING = 1, 2, 8


def text(value: str | bytes) -> bytes:
    """A string of the protocol."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(">I", len(raw)) + raw


def mode(bits: int) -> bytes:
    """Attributes: a mode, nothing else."""
    return struct.pack(">II", 4, bits)


NOTHING = struct.pack(">I", 0)


class Sftp:
    """A session; ``command`` is an ssh command line that ends with the account."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [*command, "-s", "sftp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._count = 0
        self._send(bytes([1]) + struct.pack(">I", 3))
        assert self._receive()[0] == 2

    def __enter__(self) -> Sftp:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, kind: int, *parts: bytes) -> int:
        """The status that a request gets; OK also where it gets something better."""
        answer = self._ask(kind, *parts)
        return int.from_bytes(answer[5:9], "big") if answer[0] == _STATUS else OK

    def open(
        self, path: str, flags: int = WRITING | CREATING, attributes: bytes = NOTHING
    ) -> bytes:
        """The handle of an opened file."""
        answer = self._ask(OPEN, text(path), struct.pack(">I", flags), attributes)
        assert answer[0] == _HANDLE, answer
        return answer[5:]

    def write(self, handle: bytes, offset: int, content: bytes) -> int:
        return self.ask(WRITE, handle, struct.pack(">Q", offset), text(content))

    def _ask(self, kind: int, *parts: bytes) -> bytes:
        self._count += 1
        self._send(bytes([kind]) + struct.pack(">I", self._count) + b"".join(parts))
        return self._receive()

    def _send(self, message: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text(message))
        self._process.stdin.flush()

    def _receive(self) -> bytes:
        assert self._process.stdout is not None
        head = self._process.stdout.read(4)
        assert len(head) == 4, "the session ended"
        return self._process.stdout.read(int.from_bytes(head, "big"))


def sink(command: Sequence[str], sent: bytes) -> tuple[int, bytes]:
    """Send ``sent`` all at once and close; exit code, and what was answered."""
    done = subprocess.run(command, input=sent, capture_output=True, check=False, timeout=PATIENCE)
    return done.returncode, done.stdout


def record(name: str, content: bytes, bits: str = "0644") -> bytes:
    """One file in the old protocol."""
    return f"C{bits} {len(content)} {name}\n".encode() + content + b"\0"
