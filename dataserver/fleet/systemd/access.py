"""Whether an account can get at files: the way there and the files, by owner, group and mode.

Lists of access control and security modules are not looked at.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_READ, _ENTER = 4, 1


@dataclass(frozen=True, slots=True)
class Who:
    """An account, as the kernel sees it; None: one that is nobody's owner."""

    uid: int | None
    #: Its groups, the primary one first.
    gids: Sequence[int]

    @classmethod
    def named(cls, name: str) -> Who | None:
        """The account ``name`` of this machine, None: there is none."""
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            return None
        others = set(os.getgrouplist(name, found.pw_gid)) - {found.pw_gid}
        return cls(found.pw_uid, (found.pw_gid, *sorted(others)))

    def may(self, info: os.stat_result, needed: int) -> bool:
        """Whether it has these rights (bits of a mode's last digit)."""
        shift = 6 if info.st_uid == self.uid else 3 if info.st_gid in self.gids else 0
        return (info.st_mode >> shift) & needed == needed


def obstacle(path: Path, who: Who) -> Path | None:
    """What keeps ``who`` from reading ``path`` (a program: running it): a folder above, or itself.

    None: nothing does, as far as modes tell.  Links are followed; what cannot be looked at is an
    obstacle.
    """
    real = Path(os.path.realpath(path))
    # A link's own way counts as well.
    for each in dict.fromkeys([*reversed(path.parents), *reversed(real.parents), real]):
        try:
            info = each.stat()
        except OSError:
            return each
        if not who.may(info, _needed(info.st_mode) if each == real else _ENTER):
            return each
    return None


def _needed(mode: int) -> int:
    """The rights for a folder to be listed, a program to be run, a file to be read."""
    return _READ | _ENTER if stat.S_ISDIR(mode) or mode & 0o111 else _READ
