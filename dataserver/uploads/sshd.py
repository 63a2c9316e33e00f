"""What sshd is told about the upload accounts, and whether it does so.

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
#: What an upload needs, and nothing that reads, lists, renames or removes.  scp asks fsetstat of
#: the file that it has open: it cuts off what a longer one of this name left, and complains
#: without.  That gives an uploader no more than open and write do.
REQUESTS = ("open", "write", "close", "fsetstat", "stat", "realpath", "limits")
#: What may stand in a home's path: nothing there needs quoting, in sshd_config, a shell or a unit.
_PLAIN = re.compile(r"(/[A-Za-z0-9._+@-]+)+")

#: For both accounts.  Each keyword may stand in a Match block and is told by ``sshd -T``.
_BOTH = {
    "AuthenticationMethods": "publickey",
    "PubkeyAuthentication": "yes",
    "PasswordAuthentication": "no",
    "KbdInteractiveAuthentication": "no",
    "AuthorizedKeysCommand": "none",
    "AuthorizedPrincipalsFile": "none",
    "TrustedUserCAKeys": "none",
    "DisableForwarding": "yes",
    # The same one by one: some versions left agent and X11 out of the above (CVE-2025-32728).
    "AllowAgentForwarding": "no",
    "AllowStreamLocalForwarding": "no",
    "AllowTcpForwarding": "no",
    "GatewayPorts": "no",
    "PermitTunnel": "no",
    "X11Forwarding": "no",
    "PermitTTY": "no",
    "PermitUserRC": "no",
    "MaxSessions": "1",
    # Instead of what else may be accepted: a variable can change what a program does.
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
    """The home's real path, as it may stand in sshd's configuration; UsageError otherwise."""
    root = os.path.realpath(home.root)
    if not _PLAIN.fullmatch(root):
        raise UsageError(
            f"{root} cannot be a home with uploads",
            hint="its path may have letters, digits and ._+@- only: move it",
        )
    return root


def settings(home: Home, account: str) -> dict[str, str]:
    """What sshd has to do for ``account``: keyword to value."""
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
    """Why sshd would refuse the home as a chroot, each as one line with its remedy."""
    path = Path(os.path.realpath(home.root))
    for each in (path, *path.parents):
        found = each.stat()
        mode = stat.S_IMODE(found.st_mode)
        own = f"chown root {each} && chmod go-w {each}"
        # What is above may be somebody's home or /tmp, which have to stay as they are.
        remedy = own if each == path else "move the home, to /var/lib for one"
        if found.st_uid != 0 or mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield (
                f"{each} belongs to user {found.st_uid} and has mode {mode:o}, but only root may "
                f"write to a chroot and all above it; {remedy}"
            )


def refusal() -> str | None:
    """What sshd has against its configuration as it stands; None: nothing."""
    done = _sshd("-t")
    return None if done.returncode == 0 else " ".join(done.stderr.split()) or "it does not say why"


def check_accepted() -> None:
    """Raise DataserverError where sshd refuses its configuration as it stands."""
    if (why := refusal()) is not None:
        raise DataserverError(
            f"sshd refuses its configuration as it is: {why}",
            hint="mend that first, then run this again",
        )


def install(file: File) -> None:
    """Put the drop-in in place if sshd accepts its whole configuration then.

    Raises DataserverError, and leaves what was there, where it does not, or refuses its
    configuration already without.
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
        f"sshd refuses what would be its configuration: {why}",
        hint=f"{file.path} is as it was; nothing was changed for sshd",
    )


def problems(home: Home) -> Iterator[str]:
    """Where sshd, as root asks it, does not do what :func:`settings` says."""
    for account in (UPLOAD_USER, SCP_USER):
        said = _effective(account)
        if not said:
            continue
        for keyword, value in settings(home, account).items():
            found = said.get(keyword.lower(), [])
            if found not in ([value], [] if value == "none" else [value]):
                yield (
                    f"sshd has {keyword} {', '.join(found) or 'none'} for {account}, not {value}; "
                    f"see that /etc/ssh/sshd_config includes {DROP_IN.parent}/*.conf and that "
                    f"no Match before {DROP_IN.name} says so"
                )
                break
        yield from _kept_out(account, said)


def _kept_out(account: str, said: dict[str, list[str]]) -> Iterator[str]:
    for keyword, name in (("AllowUsers", account), ("AllowGroups", UPLOAD_GROUP)):
        patterns = said.get(keyword.lower(), [])
        if patterns and not any(fnmatchcase(name, each) for each in patterns):
            yield f"sshd's {keyword} leaves {name} out; add it there and reload sshd"


def _effective(account: str) -> dict[str, list[str]]:
    """What sshd would do for ``account``, by keyword in small letters; empty: it does not say."""
    if os.geteuid() != 0:
        return {}
    done = _sshd("-T", "-C", f"user={account},host=agent.invalid,addr=192.0.2.1")
    said: dict[str, list[str]] = {}
    for line in done.stdout.splitlines() if done.returncode == 0 else ():
        keyword, _, value = line.partition(" ")
        said.setdefault(keyword, []).append(value)
    return said


def _sshd(*options: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        raise DataserverError("there is no sshd", hint="apt install openssh-server")
    return subprocess.run(
        [program, *options],
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
    )


def _replace(path: Path, content: bytes) -> None:
    # sshd includes *.conf only, so it never sees the beginning of one.
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(content)
    temporary.chmod(0o644)
    temporary.replace(path)


def receive_path(home: Home) -> Path:
    """The program that sshd runs for the old protocol."""
    return uploads_folder(home) / "receive"
