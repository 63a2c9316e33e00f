"""What systemd needs to run the instances of a home, as files; only a command writes them.

The templates are those of ``instances/units/``.
Sources: systemd.unit(5), systemd.service(5), systemd.exec(5), tmpfiles.d(5).
"""

from __future__ import annotations

import glob
import os
import pwd
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataserver.config.paths import Home
from dataserver.config.settings import Settings
from dataserver.fleet.systemd.names import TARGET, TEMPLATE, TMPFILES_FILE, UNITS, drop_in_path
from dataserver.quoting import argument, line, word, words
from dataserver.templates import File, render
from dataserver.uploads.accounts import (
    DATA_IN_MODE,
    SERVICE_GROUP,
    SERVICE_USER,
    UPLOAD_GROUP,
    accounts_file,
)
from dataserver.uploads.rights import untouchable

_OURS = "instances/units"
_SQLITE = "sqlite:///"
#: What ``ProtectHome=yes`` hides, and ``PrivateTmp=yes``.
_HOMES = ("/home", "/root", "/run/user")
_TEMPORARY = ("/tmp", "/var/tmp")


@dataclass(frozen=True, slots=True)
class Needs:
    """What one instance has to reach; paths are absolute and without links."""

    data_in: Path
    #: The directory of its database file, None: its database is a server.
    database: Path | None = None
    #: The file with the database's password.
    password: Path | None = None

    @classmethod
    def of(cls, settings: Settings, home: Home) -> Needs:
        """What an instance with these settings needs."""
        database = None
        if settings.database.startswith(_SQLITE):
            name = settings.database.removeprefix(_SQLITE).partition("?")[0]
            database = _real(home.root / name).parent
        return cls(_real(settings.data_in), database, settings.database_password_file)

    def outside(self, home: Home) -> list[Path]:
        """The directories outside of the home in which it writes, without those in another."""
        found = {path for path in (self.data_in, self.database) if path and not _in(path, home)}
        return sorted(path for path in found if not found & set(path.parents))


def files(home: Home, python: Path, code: Iterable[Path], needs: Mapping[str, Needs]) -> list[File]:
    """Everything for ``/etc``: units, accounts, directories.

    ``python`` is the interpreter, ``code`` everything that it reads, ``needs`` what each instance
    needs.  Raises UsageError for a path that systemd's files cannot have, ConfigError for a
    template that cannot be used.
    """
    paths = [_real(home.root), *(_real(each) for each in code)]
    service = render(
        home,
        f"{_OURS}/{TEMPLATE.name}.j2",
        home_line=line(home.root),
        home_word=word(home.root),
        home_exec=argument(home.root),
        python_word=argument(python),
        readonly_words=words([home.root / "keepalived", home.root / "uploads"], optional=True),
        # Hidden where nothing of ours is there; else only not writable.
        protect_home="read-only" if _below(paths, _HOMES) else "yes",
        private_tmp="no" if _below(paths, _TEMPORARY) else "yes",
        user=SERVICE_USER,
        group=SERVICE_GROUP,
        upload_group=UPLOAD_GROUP,
    )
    target = render(home, f"{_OURS}/{TARGET}.j2", home_line=line(home.root))
    made = [File(TEMPLATE, service), File(UNITS / TARGET, target)]
    made += [
        file for name, each in sorted(needs.items()) if (file := drop_in(home, name, each)).text
    ]
    return [*made, accounts_file(home), _tmpfiles(home, needs.values())]


def drop_in(home: Home, name: str, needs: Needs) -> File:
    """What lets an instance reach what it has outside of the home; empty: it has nothing there."""
    outside = needs.outside(home)
    if not outside:
        return File(drop_in_path(name), "")
    text = render(
        home,
        f"{_OURS}/paths.conf.j2",
        instance=name,
        words=words(outside),
        optional_words=words(outside, optional=True),
        protect_home="read-only" if _below(outside, _HOMES) else "",
        private_tmp="no" if _below(outside, _TEMPORARY) else "",
    )
    return File(drop_in_path(name), text)


def _tmpfiles(home: Home, needs: Iterable[Needs]) -> File:
    needs = list(needs)
    directories = sorted({each.data_in for each in needs if not untouchable(home, each.data_in)})
    # Elsewhere they are somebody else's.  The path is a pattern here.
    secrets = sorted(
        {each.password for each in needs if each.password and _in(each.password, home)}
    )
    text = render(
        home,
        f"{_OURS}/tmpfiles.conf.j2",
        home_word=word(home.root),
        instances_word=word(home.instances),
        var_word=word(home.var),
        directories=[word(each) for each in directories],
        data_in_mode=f"{DATA_IN_MODE:o}",
        secrets=[word(Path(glob.escape(os.fspath(each)))) for each in secrets],
        user=SERVICE_USER,
        group=SERVICE_GROUP,
        upload_group=UPLOAD_GROUP,
    )
    return File(TMPFILES_FILE, text)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _in(path: Path, home: Home) -> bool:
    return _real(path).is_relative_to(_real(home.root))


def _below(paths: Iterable[Path], folders: Sequence[str]) -> bool:
    return any(path.is_relative_to(folder) for path in paths for folder in folders)


# -- whether an account can get at files: the way there and the files, by owner, group and mode
#
# Lists of access control and security modules are not looked at.

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
