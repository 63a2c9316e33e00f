"""The configuration of sshd for the upload accounts, and whether it takes effect.

Sources: sshd_config(5), sftp-server(8), sshd(8) for ``-t`` and ``-T``.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from dataserver.config.paths import Home
from dataserver.errors import DataserverError, UsageError
from dataserver.templates import File
from dataserver.uploads.accounts import SCP_USER, UPLOAD_GROUP, UPLOAD_UMASK, UPLOAD_USER
from dataserver.uploads.keys import keys_file, uploads_folder

DROP_IN = Path("/etc/ssh/sshd_config.d/dataserver.conf")
#: The SFTP requests that an upload needs; none reads, lists, renames or removes.  scp uses fsetstat
#: on the open file to cut off the rest of a longer one of this name, and fails without it.  That
#: grants no more than open and write do.
REQUESTS = ("open", "write", "close", "fsetstat", "stat", "realpath", "limits")
#: A home's path that needs no quoting, in sshd_config, a shell or a unit.
_PLAIN = re.compile(r"(/[A-Za-z0-9._+@-]+)+")

#: For both accounts.  Each keyword is allowed in a Match block and shown by ``sshd -T``.
_BOTH = {
    "AuthenticationMethods": "publickey",
    "PubkeyAuthentication": "yes",
    "PasswordAuthentication": "no",
    "KbdInteractiveAuthentication": "no",
    "AuthorizedKeysCommand": "none",
    "AuthorizedPrincipalsFile": "none",
    "TrustedUserCAKeys": "none",
    "DisableForwarding": "yes",
    # The same in detail: in some versions the above omits agent and X11 (CVE-2025-32728).
    "AllowAgentForwarding": "no",
    "AllowStreamLocalForwarding": "no",
    "AllowTcpForwarding": "no",
    "GatewayPorts": "no",
    "PermitTunnel": "no",
    "X11Forwarding": "no",
    "PermitTTY": "no",
    "PermitUserRC": "no",
    "MaxSessions": "1",
    # Overrides other AcceptEnv lines: a variable can change what a program does.
    "AcceptEnv": "LANG",
    "ClientAliveInterval": "30",
    "ClientAliveCountMax": "4",
    "Banner": "none",
}
_HEAD = """\
# Lets agents upload packets, and do nothing else. Written by `dataserver uploads setup`;
# docs/uploads.md explains it. `dataserver check` compares it, and what sshd makes of it.
"""


def check_plain(home: Home) -> str:
    """The home's real path; UsageError if sshd's configuration cannot contain it."""
    root = os.path.realpath(home.root)
    if not _PLAIN.fullmatch(root):
        raise UsageError(
            f"{root} cannot be a home with uploads",
            hint="its path may contain only letters, digits and ._+@-: move it",
        )
    return root


def settings(home: Home, account: str) -> dict[str, str]:
    """The settings of sshd for ``account``: keyword to value."""
    root = check_plain(home)
    own = {"ChrootDirectory": "none", "ForceCommand": f"{root}/uploads/receive"}
    if account == UPLOAD_USER:
        command = f"internal-sftp -u 0{UPLOAD_UMASK:o} -p {','.join(REQUESTS)}"
        own = {"ChrootDirectory": root, "ForceCommand": command}
    return {"AuthorizedKeysFile": f"{root}/uploads/{keys_file(home).name}", **_BOTH, **own}


def drop_in(home: Home) -> File:
    """The file for ``/etc/ssh/sshd_config.d``."""
    lines = [_HEAD.rstrip("\n")]
    for account in (UPLOAD_USER, SCP_USER):
        lines.append(f"Match User {account}")
        lines += [f"    {keyword} {value}" for keyword, value in settings(home, account).items()]
    lines += ["# What follows in other files is for all again.", "Match all", ""]
    return File(DROP_IN, "\n".join(lines))


def chroot_problems(home: Home) -> Iterator[str]:
    """Why sshd would reject the home as a chroot, each as one line with its remedy."""
    path = Path(os.path.realpath(home.root))
    for each in (path, *path.parents):
        found = each.stat()
        mode = stat.S_IMODE(found.st_mode)
        own = f"chown root {each} && chmod go-w {each}"
        # A folder above may be a user's home or /tmp, which must not be changed.
        remedy = own if each == path else "move the home, for example to /var/lib"
        if found.st_uid != 0 or mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield (
                f"{each} belongs to user {found.st_uid} and has mode {mode:o}, but only root may "
                f"write to a chroot and all above it; {remedy}"
            )


def refusal() -> str | None:
    """Why sshd rejects its current configuration, or None if it accepts it."""
    done = _sshd("-t")
    return None if done.returncode == 0 else " ".join(done.stderr.split()) or "it gives no reason"


def check_accepted() -> None:
    """Raise DataserverError if sshd rejects its current configuration."""
    if (why := refusal()) is not None:
        raise DataserverError(
            f"sshd rejects its current configuration: {why}",
            hint="fix that first, then run this again",
        )


def install(file: File) -> None:
    """Install the drop-in if sshd accepts its whole configuration with it.

    Otherwise, or if sshd rejects its current configuration, raises DataserverError and restores
    the former file.
    """
    check_accepted()
    old = file.path.read_bytes() if file.path.exists() else None
    file.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _replace(file.path, file.text.encode())
    if (why := refusal()) is None:
        return
    if old is None:
        file.path.unlink()
    else:
        _replace(file.path, old)
    raise DataserverError(
        f"sshd rejects the new configuration: {why}",
        hint=f"{file.path} was restored; the configuration of sshd is unchanged",
    )


def problems(home: Home) -> Iterator[str]:
    """Where the effective configuration of sshd differs from :func:`settings`; needs root."""
    for account in (UPLOAD_USER, SCP_USER):
        effective = _effective(account)
        if not effective:
            continue
        for keyword, value in settings(home, account).items():
            found = effective.get(keyword.lower(), [])
            if found not in ([value], [] if value == "none" else [value]):
                yield (
                    f"sshd has {keyword} {', '.join(found) or 'none'} for {account}, not {value}; "
                    f"see that /etc/ssh/sshd_config includes {DROP_IN.parent}/*.conf and that "
                    f"no Match before {DROP_IN.name} sets it"
                )
                break
        yield from _excluded(account, effective)


def _excluded(account: str, effective: dict[str, list[str]]) -> Iterator[str]:
    for keyword, name in (("AllowUsers", account), ("AllowGroups", UPLOAD_GROUP)):
        patterns = effective.get(keyword.lower(), [])
        if patterns and not any(fnmatchcase(name, each) for each in patterns):
            yield f"sshd's {keyword} does not include {name}; add it there and reload sshd"


def _effective(account: str) -> dict[str, list[str]]:
    """The effective settings of ``account`` by lower-case keyword; empty if unknown."""
    if os.geteuid() != 0:
        return {}
    done = _sshd("-T", "-C", f"user={account},host=agent.invalid,addr=192.0.2.1")
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines() if done.returncode == 0 else ():
        keyword, _, value = line.partition(" ")
        found.setdefault(keyword, []).append(value)
    return found


def _sshd(*options: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        raise DataserverError("sshd is not installed", hint="apt install openssh-server")
    return subprocess.run(
        [program, *options],
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
    )


def _replace(path: Path, content: bytes) -> None:
    # sshd includes only *.conf, so it never reads an incomplete file.
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(content)
    temporary.chmod(0o644)
    temporary.replace(path)


def receive_path(home: Home) -> Path:
    """The program that sshd runs for the old protocol."""
    return uploads_folder(home) / "receive"
