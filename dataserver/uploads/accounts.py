"""The accounts and groups of a machine to which agents upload.

These names appear in all generated files; they are not settings.
"""

from __future__ import annotations

import grp
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataserver.config.paths import Home
from dataserver.errors import DataserverError
from dataserver.quoting import word
from dataserver.templates import File

#: Runs the instances and owns their files.
SERVICE_USER = "dataserver"
SERVICE_GROUP = "dataserver"
#: The group that may create files in the drop directories; the service user is a member, to
#: read them.
UPLOAD_GROUP = "dataserver-upload"
#: For agents whose scp uses SFTP (OpenSSH 9.0 and later), and for sftp: in a chroot.
UPLOAD_USER = "dataserver-upload"
#: For agents whose scp uses the old protocol (before OpenSSH 9.0, or ``scp -O``).
SCP_USER = "dataserver-scp"

#: The mode of a drop directory for these accounts: the group may write and enter it but not list
#: it, and new files get the group, so that the service user can read them.
DATA_IN_MODE = 0o2730
#: The umask of uploads: the owner may only write the file, the group only read it.
UPLOAD_UMASK = 0o537

#: Where systemd finds the accounts to create (sysusers.d(5)).
SYSUSERS_FILE = Path("/etc/sysusers.d/dataserver.conf")
_NO_LOGIN = "/usr/sbin/nologin"


@dataclass(frozen=True, slots=True)
class Account:
    """One account: its name, primary group, home directory and login shell."""

    name: str
    group: str
    home: str
    shell: str
    about: str


def accounts(home: Home) -> tuple[Account, ...]:
    """All accounts of an installation in ``home``."""
    return (
        Account(SERVICE_USER, SERVICE_GROUP, str(home.root), _NO_LOGIN, "Data server"),
        Account(UPLOAD_USER, UPLOAD_GROUP, "/", _NO_LOGIN, "Data server, uploads by sftp"),
        # sshd starts even a forced command through the login shell, so it needs one.
        Account(SCP_USER, UPLOAD_GROUP, "/", "/bin/sh", "Data server, uploads by old scp"),
    )


def accounts_file(home: Home) -> File:
    """The sysusers.d entry for all accounts and groups.

    Source: https://www.freedesktop.org/software/systemd/man/latest/sysusers.d.html
    """
    lines = [
        "# The accounts of the data server: its own, and two with which agents upload.",
        "# Written by `dataserver`; see docs/uploads.md.",
        f"g {SERVICE_GROUP} - -",
        f"g {UPLOAD_GROUP} - -",
    ]
    lines += [
        f'u {each.name} -:{each.group} "{each.about}" {word(Path(each.home))} {each.shell}'
        for each in accounts(home)
    ]
    lines.append(f"m {SERVICE_USER} {UPLOAD_GROUP}")
    return File(SYSUSERS_FILE, "\n".join([*lines, ""]))


def missing(home: Home) -> list[str]:
    """The accounts that this machine does not have."""
    return [each.name for each in accounts(home) if _user(each.name) is None]


def create(home: Home) -> list[str]:
    """Create the missing accounts, as root; returns their names.

    With systemd-sysusers, :data:`SYSUSERS_FILE` must be installed.  Raises DataserverError if a
    program fails.
    """
    absent = missing(home)
    if absent and shutil.which("systemd-sysusers"):
        _run("systemd-sysusers", str(SYSUSERS_FILE))
    elif absent:
        _create_by_hand(home, absent)
    for name in (UPLOAD_USER, SCP_USER):
        # A new account is locked, and without PAM sshd rejects locked accounts; `*` is a
        # password that matches nothing.
        if _run("getent", "shadow", name).split(":")[1] in {"!", "!!", "!*"}:
            _run("usermod", "--password", "*", name)
    if not in_upload_group(SERVICE_USER):
        _run("usermod", "--append", "--groups", UPLOAD_GROUP, SERVICE_USER)
    return absent


def _create_by_hand(home: Home, absent: Sequence[str]) -> None:
    for group in (SERVICE_GROUP, UPLOAD_GROUP):
        _run("groupadd", "--system", "--force", group)
    for each in accounts(home):
        if each.name in absent:
            options = ("--system", "--no-create-home", "--gid", each.group)
            rest = ("--home-dir", each.home, "--shell", each.shell, "--comment", each.about)
            _run("useradd", *options, *rest, each.name)


def in_upload_group(name: str) -> bool:
    """Whether the account ``name`` is in the upload group."""
    user, group = _user(name), _group()
    return (
        user is not None
        and group is not None
        and (name in group.gr_mem or user.pw_gid == group.gr_gid)
    )


def problems(home: Home) -> Iterator[str]:
    """The problems of the accounts of this machine, each as one line with its remedy."""
    remedy = "run `dataserver uploads setup --install` as root"
    for each in accounts(home):
        user = _user(each.name)
        if user is None:
            yield f"there is no account {each.name}; {remedy}"
        elif user.pw_uid == 0:
            yield f"account {each.name} has root's user id; give it its own"
        elif not in_upload_group(each.name):
            yield (
                f"account {each.name} is not in group {UPLOAD_GROUP}; "
                f"usermod -aG {UPLOAD_GROUP} {each.name}, and restart what runs as it"
            )
    scp = _user(SCP_USER)
    if scp is not None and Path(scp.pw_shell).name in {"nologin", "false"}:
        yield f"account {SCP_USER} has the shell {scp.pw_shell}; usermod -s /bin/sh {SCP_USER}"


def ids() -> tuple[int, int] | None:
    """The ids of the service user and the upload group, or None if one does not exist."""
    user, group = _user(SERVICE_USER), _group()
    return None if user is None or group is None else (user.pw_uid, group.gr_gid)


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _group() -> grp.struct_group | None:
    try:
        return grp.getgrnam(UPLOAD_GROUP)
    except KeyError:
        return None


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, check=False, capture_output=True, stdin=subprocess.DEVNULL)
    except OSError as exc:
        raise DataserverError(
            f"{command[0]} cannot be run: {exc.strerror}", hint="install the package that has it"
        ) from exc
    if done.returncode:
        message = " ".join(done.stderr.decode("utf-8", "replace").split())
        raise DataserverError(f"`{' '.join(command)}` failed: {message or done.returncode}")
    return done.stdout.decode("utf-8", "replace")
