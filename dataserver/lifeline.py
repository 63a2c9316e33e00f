"""Child processes that end with their parent, however it ends.

Linux only (prctl(2), PR_SET_PDEATHSIG): the kernel kills the child, so this works even if the
parent crashed, or if the child is stopped or hangs.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when ``parent`` ends, which started it in its main thread.

    SIGKILL loses no data (commit, then unlink).  If the parent has already ended, this process
    ends at once.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    # The parent may have ended before the call, which the kernel does not report.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
