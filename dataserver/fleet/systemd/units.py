"""The files that systemd needs to run the instances of a home, as texts; a command writes them.

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
_READ, _ENTER = 4, 1


@dataclass(frozen=True, slots=True)
class Needs:
    """The paths that one instance needs, absolute and without links."""

    data_in: Path
    #: The directory of its SQLite file, or None if its database is a server.
    database: Path | None = None
    #: The file with the database's password.
    password: Path | None = None

    @classmethod
    def of(cls, settings: Settings, home: Home) -> Needs:
        """The paths that an instance with these settings needs."""
        database = None
        if settings.database.startswith(_SQLITE):
            name = settings.database.removeprefix(_SQLITE).partition("?")[0]
            database = _real(home.root / name).parent
        return cls(_real(settings.data_in), database, settings.database_password_file)

    def outside(self, home: Home) -> list[Path]:
        """The directories outside of the home into which it writes, without nested ones."""
        found = {path for path in (self.data_in, self.database) if path and not _in(path, home)}
        return sorted(path for path in found if not found & set(path.parents))


def systemd_files(
    home: Home, python: Path, code: Iterable[Path], needs: Mapping[str, Needs]
) -> list[File]:
    """All files for ``/etc``: units, accounts, directories.

    ``python`` is the interpreter, ``code`` the files that it reads, ``needs`` what each instance
    needs.  Raises UsageError for a path that systemd's files cannot contain, ConfigError for an
    invalid template.
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
        # Hidden unless something of ours is there; then only read-only.
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
    """The drop-in that lets an instance reach its paths outside of the home; empty without any."""
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
    # Only those in the home: others are not ours.  The path is a pattern here.
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


# -- whether an account can reach a file --


@dataclass(frozen=True, slots=True)
class Account:
    """An account, as the kernel sees it; a ``uid`` of None owns no file."""

    uid: int | None
    #: Its groups, the primary one first.
    gids: Sequence[int]

    @classmethod
    def named(cls, name: str) -> Account | None:
        """The account ``name`` of this machine, or None if it does not exist."""
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


def obstacle(path: Path, who: Account) -> Path | None:
    """The path that keeps ``who`` from reading or running ``path``: itself or a folder above.

    None if there is no obstacle according to owner, group and mode; access control lists and
    security modules are not considered.  Links are followed; a path that cannot be read is an
    obstacle.
    """
    real = Path(os.path.realpath(path))
    # The folders that contain a link count as well.
    for each in dict.fromkeys([*reversed(path.parents), *reversed(real.parents), real]):
        try:
            info = each.stat()
        except OSError:
            return each
        if not who.may(info, _needed(info.st_mode) if each == real else _ENTER):
            return each
    return None


def _needed(mode: int) -> int:
    """The rights needed to list a folder, run a program, or read a file."""
    return _READ | _ENTER if stat.S_ISDIR(mode) or mode & 0o111 else _READ
