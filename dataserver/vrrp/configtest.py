"""keepalived's own test of a configuration, run so that its result is meaningful.

``keepalived -t`` depends on the machine, and has pitfalls (in 2.2.7 and later):

* interfaces, the script user and the scripts must exist;
* a missing or empty configuration passes;
* with a script user other than root it ends with 143 (its own SIGTERM), unless it is process 1 of
  a process namespace;
* 5 means an invalid configuration, 6 one whose scripts are not secure.

So it runs in its own namespaces: there the folder's files are in ``/etc/keepalived``, the named
interfaces exist, the mail server has an address, and a missing account has a substitute.  What this
machine lacks is part of the result.
Source: keepalived(8), "EXIT STATUS"; namespaces(7).
"""

from __future__ import annotations

import ipaddress
import os
import pwd
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dataserver.errors import DataserverError, UsageError
from dataserver.vrrp.model import DEVICE, MAIL_SERVER, USER, Word
from dataserver.vrrp.renderer import CONFIG, CONFIG_DIR, INSTALLED, SCRIPTS

_TIMEOUT = 30.0
#: Exit code if the sandbox could not be created: not one of keepalived's.
_NO_SANDBOX = 99
#: keepalived was ended by its own SIGTERM, since it was not process 1.
_TERMINATED = 143

_COMMENT = re.compile(r"[#!].*")
_INTERFACE = re.compile(r"\b(?:interface|dev)\s+(\S+)")
_USER = re.compile(r"\bscript_user\s+(\S+)")
_SERVER = re.compile(r"\bsmtp_server\s+(\S+)")
_INSTANCE = re.compile(r"\bvrrp_instance\s+\S")

# Its arguments: the folder, a missing user (or nothing), the name of a mail server (or nothing;
# there is no network in which it could be resolved), names of interfaces.
_SANDBOX = f"""\
set -eu
trap 'exit {_NO_SANDBOX}' EXIT
folder=$1 user=$2 server=$3
shift 3
mount -t proc proc /proc
mount -t tmpfs -o mode=0755 tmpfs {CONFIG_DIR}
mkdir {SCRIPTS}
cp -- "$folder/{CONFIG}" {CONFIG_DIR}/
for script in {" ".join(name for name, place in INSTALLED.items() if place.parent == SCRIPTS)}; do
    [ ! -f "$folder/$script" ] || cp -p -- "$folder/$script" {SCRIPTS}/
done
chown -R 0:0 {CONFIG_DIR}
chmod -R go-w {CONFIG_DIR}
if [ -n "$user" ]; then
    for file in passwd group; do
        cp -p /etc/$file {CONFIG_DIR}/.$file
        mount --bind {CONFIG_DIR}/.$file /etc/$file
    done
    echo "$user:x:64999:64999::/:/bin/false" >> /etc/passwd
    echo "$user:x:64999:" >> /etc/group
fi
if [ -n "$server" ]; then
    cp -p /etc/hosts {CONFIG_DIR}/.hosts
    echo "192.0.2.25 $server" >> {CONFIG_DIR}/.hosts
    mount --bind {CONFIG_DIR}/.hosts /etc/hosts
fi
number=0
for interface; do
    number=$((number + 1))
    # No interface that may be named begins with _.
    ip link add name "$interface" type veth peer name "_ds-peer-$number"
done
exec keepalived --config-test --use-file {CONFIG_DIR}/{CONFIG}
"""


@dataclass(frozen=True, slots=True)
class ConfigTest:
    """The result of a test."""

    #: keepalived's exit code; 0: it would run with this configuration.
    code: int
    #: The lines that it printed, and our own complaints about the files.
    output: tuple[str, ...]
    #: What this machine lacks, so that a substitute was used.
    lacking: tuple[str, ...]
    #: Whether the folder is this machine's, which should lack nothing then.
    own: bool

    @property
    def good(self) -> bool:
        """Whether the configuration passed, as far as it can be tested here."""
        return self.code == 0 and not self.output and not (self.own and self.lacking)


def test(folder: Path) -> ConfigTest:
    """Test the files of one host's ``folder``; needs root.

    Raises UsageError if it contains no configuration, DataserverError if it cannot be tested here.
    """
    text = _read(folder)
    interfaces = _named(_INTERFACE, text, DEVICE)
    users = _named(_USER, text, USER)
    strangers = [user for user in users if not _is_user(user)]
    complaints = tuple(_complaints(folder, text))
    servers = [each for each in _named(_SERVER, text, MAIL_SERVER) if not _is_address(each)]
    stand_ins = [found[0] if found else "" for found in (strangers, servers)]
    done = _run(folder, stand_ins, interfaces)
    here = {name for _, name in socket.if_nameindex()}
    lacking = [f"interface {each}" for each in interfaces if each not in here]
    lacking += [f"account {each}" for each in strangers]
    lacking += [f"an address of {each}" for each in servers if not _has_address(each)]
    output = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return ConfigTest(done.returncode, (*output, *complaints), tuple(lacking), _is_own(folder))


def _read(folder: Path) -> str:
    path = folder / CONFIG
    try:
        text = path.read_text("utf-8", errors="replace")
    except FileNotFoundError as exc:
        raise UsageError(
            f"there is no {path}", hint="name a host's folder, such as keepalived/HOST"
        ) from exc
    return "\n".join(_COMMENT.sub("", line) for line in text.split("\n"))


def _named(pattern: re.Pattern[str], text: str, kind: Word) -> list[str]:
    """The matches of the pattern, each once; malformed ones are left to keepalived."""
    found = dict.fromkeys(pattern.findall(text))
    return [each for each in found if kind.shape.fullmatch(each) and each not in kind.refused]


def _complaints(folder: Path, text: str) -> Iterator[str]:
    """Problems that keepalived does not report."""
    if not _INSTANCE.search(text):
        yield f"{CONFIG} has no vrrp_instance: keepalived would do nothing"
    for name, place in INSTALLED.items():
        if place.parent != SCRIPTS or str(place) not in text:
            continue
        try:
            is_program = os.access(folder / name, os.X_OK) and (folder / name).is_file()
        except OSError:
            is_program = False
        if not is_program:
            yield f"{name} is not in the folder, or is not executable (chmod 755)"


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _has_address(name: str) -> bool:
    try:
        return bool(socket.getaddrinfo(name, None))
    except (OSError, UnicodeError):
        return False


def _is_own(folder: Path) -> bool:
    return folder.resolve().name.lower() == socket.gethostname().partition(".")[0].lower()


def _run(
    folder: Path, stand_ins: list[str], interfaces: list[str]
) -> subprocess.CompletedProcess[str]:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"
    for program, package in (("keepalived", "keepalived"), ("unshare", "util-linux")):
        if shutil.which(program, path=path) is None:
            raise DataserverError(
                f"{program} is not installed", hint=f"`apt-get install {package}`"
            )
    if os.geteuid() != 0:
        raise DataserverError(
            "keepalived's test needs root, for its own namespaces", hint="run it with sudo"
        )
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child=KILL"]
    command += ["--propagation", "private", "sh", "-c", _SANDBOX, "sh"]
    command += [str(folder.resolve()), *stand_ins, *interfaces]
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            env={"PATH": path, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as exc:
        raise DataserverError(f"keepalived's test did not end within {_TIMEOUT:g} s") from exc
    output = " ".join(done.stdout.split())
    if (
        done.returncode in {_NO_SANDBOX, _TERMINATED}
        or done.returncode < 0
        or (done.returncode == 1 and output.startswith("unshare:"))
    ):
        raise DataserverError(
            f"keepalived's test cannot be run here ({done.returncode}): {output}",
            hint="run it on a machine where root may create namespaces",
        )
    return done
