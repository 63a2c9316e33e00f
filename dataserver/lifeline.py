"""A process that ends when the one that started it does, however that ends.

Linux only (prctl(2), PR_SET_PDEATHSIG): the kernel kills the child, so it does not matter
whether the parent could still say anything, nor whether the child is stopped or hangs.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Have this process killed when ``parent``, which started it from its main thread, ends.

    SIGKILL loses nothing (commit, then unlink).  Where the parent has ended already, this
    process ends here and now.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    # It may have ended before it was asked for: then nobody would tell us.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
