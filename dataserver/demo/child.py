"""``python -m dataserver.demo.child PARENT ARGUMENTS``: a ``dataserver`` that ends with PARENT.

The kernel keeps what :mod:`dataserver.lifeline` asks for through exec(2), so this becomes the
command itself, whatever that is.
"""

from __future__ import annotations

import os
import sys

from dataserver.lifeline import end_with


def main(parent: str, *arguments: str) -> None:
    """Become ``dataserver ARGUMENTS``."""
    end_with(int(parent))
    # -P: not the current directory, which is anybody's.
    command = [sys.executable, "-P", "-m", "dataserver", *arguments]
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
