"""A machine of its own for tests of uploads: /etc, /run and /var/lib are private, sshd is real.

:class:`Machine`  a mount and process namespace in which `uploads setup --install` may do what
                  it likes; nothing of it reaches the real machine, and all of it ends with it
:class:`Agent`    somebody with a key, and the programs with which it uploads

Clients run outside and come by loopback.  Needs root.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from dataserver.config.paths import Home
from tests.support.commands import COMMAND
from tests.support.ports import free_port
from tests.support.uploads import wait_for_port
from tests.support.waiting import PATIENCE, wait_until
from tests.support.warm import shared

HOME = Path("/var/lib/dataserver")
ALIAS = "/var/spool/pandora/data_in"
UPLOAD = "dataserver-upload"
SCP = "dataserver-scp"
#: What the account of the old protocol answers to everything else.
REFUSAL = "dataserver: this account only takes packets: scp -O FILE HOST:/data_in/\n"
#: As a fresh installation of Debian has it.
SSHD_CONFIG = """\
Include /etc/ssh/sshd_config.d/*.conf
KbdInteractiveAuthentication no
UsePAM yes
X11Forwarding yes
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp /usr/lib/openssh/sftp-server
"""
_SHARING = "/run/sshd-for-sharing"
#: Makes the private parts; its first argument is a directory of ours that nobody else uses.
_BEGIN = """\
set -eu
mount -t tmpfs -o mode=755 private "$1"
cp -a /etc "$1/etc"
rm -rf "$1"/etc/ssh/sshd_config.d "$1"/etc/sysusers.d/dataserver.conf
mkdir -p "$1"/etc/ssh/sshd_config.d
mount --bind "$1/etc" /etc
mount -t tmpfs -o mode=755 private /run
mount -t tmpfs -o mode=755 private /var/lib
mkdir -m 755 /run/sshd
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """One that runs; ``root`` is where its files are found from outside."""

    pid: int
    port: int
    directory: Path

    @property
    def root(self) -> Path:
        return Path(f"/proc/{self.pid}/root")

    @property
    def home(self) -> Path:
        return self.root / HOME.relative_to("/")

    def run(
        self, *command: object, check: bool = True, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a program there, as root."""
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--"]
        done = subprocess.run(
            [*enter, *map(str, command)],
            check=False,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=PATIENCE,
        )
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done

    def dataserver(
        self, *args: object, check: bool = True, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run our command there, as root."""
        there = [f"/proc/{self.pid}/ns/{kind}" for kind in ("mnt", "pid")]
        done = shared().run("--home", HOME, *args, stdin=stdin, namespaces=there)
        assert not check or done.returncode == 0, (args, done.stdout, done.stderr)
        return done

    def agent(self, name: str) -> Agent:
        """Somebody whose key was added."""
        key = self.directory / name
        make_key(key)
        self.dataserver("uploads", "key", "add", name, "-", stdin=public(key))
        return Agent(self.port, key, self.directory)

    def files(self, instance: str = "main") -> dict[str, bytes]:
        """What lies in a drop directory, without its README."""
        folder = self.home / ("data_in" if instance == "main" else f"instances/{instance}/data_in")
        return {
            path.name: path.read_bytes() if path.is_file() else b""
            for path in folder.iterdir()
            if path.name != "README.md"
        }

    def everything(self) -> dict[str, tuple[int, bytes]]:
        """Each file and folder of the home but sshd's own: mode, and content."""
        found = {}
        for path in self.home.rglob("*"):
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path.relative_to(self.home))] = (path.lstat().st_mode, content)
        return found

    @contextmanager
    def sshd(self, *options: str) -> Iterator[int]:
        """An sshd with the configuration of this machine; gives its port."""
        port = free_port()
        settings = ("-p", str(port), "-o", "ListenAddress=127.0.0.1", "-o", "PidFile=none")
        command = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--"]
        command += ["/usr/sbin/sshd", "-D", "-e", *settings, *options]
        with (self.directory / "sshd.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/bin:/bin"},
            )
        try:
            wait_for_port(port, process)
            yield port
        finally:
            # nsenter does not pass it on; what is left ends with the machine.
            process.kill()
            process.wait()

    @contextmanager
    def sshd_for_sharing(self) -> Iterator[int]:
        """The same, but one connection may have many sessions (:meth:`Agent.sharing`)."""
        more = f"""
            rm -rf {_SHARING}
            cp -a /etc/ssh {_SHARING}
            grep -q 'MaxSessions 1$' {_SHARING}/sshd_config.d/*.conf
            sed -i 's/MaxSessions 1$/MaxSessions 100/' {_SHARING}/sshd_config.d/*.conf
            sed -i 's|/etc/ssh/sshd_config.d|{_SHARING}/sshd_config.d|' {_SHARING}/sshd_config
        """
        self.run("sh", "-e", stdin=more)
        with self.sshd("-f", f"{_SHARING}/sshd_config") as port:
            yield port

    def log(self) -> str:
        return (self.directory / "sshd.log").read_text("utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class Agent:
    """The client's side."""

    port: int
    key: Path
    directory: Path
    #: Where connections are that its programs share; None: each makes one of its own.
    shared: Path | None = None

    @property
    def options(self) -> list[str]:
        settings = (
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "IdentitiesOnly=yes",
            f"ConnectTimeout={PATIENCE:.0f}",
            f"IdentityFile={self.key}",
            # A sixth of the default's work, which is not what is tested.
            "KexAlgorithms=curve25519-sha256",
            f"ControlPath={self.shared / '%r' if self.shared else 'none'}",
        )
        return ["-F", "/dev/null", *(part for each in settings for part in ("-o", each))]

    @contextmanager
    def sharing(self, *accounts: str) -> Iterator[Agent]:
        """The same with one connection to each account, over which all its programs go.

        What a session may do is decided for each of them; only logging in happens once.
        """
        with TemporaryDirectory(prefix="ssh-") as folder, ExitStack() as stack:
            made = replace(self, shared=Path(folder))
            for account in accounts:
                command = made.command(account, "-M", "-N")
                process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.DEVNULL
                )
                stack.callback(process.wait)
                stack.callback(process.kill)
                wait_until(
                    (Path(folder) / account).exists,
                    f"a connection to {account}",
                    alive=lambda process=process: process.poll() is None,
                )
            yield made

    def scp(self, account: str, *args: object) -> subprocess.CompletedProcess[str]:
        """Copy; an argument that begins with ``:`` is a path there."""
        words = [f"{account}@127.0.0.1{a}" if str(a).startswith(":") else str(a) for a in args]
        return self._run("scp", "-P", str(self.port), *self.options, *words)

    def sftp(self, account: str, *batch: str) -> subprocess.CompletedProcess[str]:
        """Run these commands of sftp; it ends at the first that fails."""
        command = ("sftp", "-P", str(self.port), *self.options, "-b", "-", f"{account}@127.0.0.1")
        return self._run(*command, stdin="\n".join([*batch, ""]))

    def ssh(self, account: str, *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """What a shell would be asked; ``args`` may begin with options."""
        return self._run(*self.command(account, *args), stdin=stdin)

    def command(self, account: str, *args: str) -> list[str]:
        """The command line of ssh."""
        options = [each for each in args if each.startswith("-")]
        rest = args[len(options) :]
        target = ["-p", str(self.port), *options, f"{account}@127.0.0.1"]
        return ["ssh", *self.options, *target, *rest]

    def packet(self, name: str, content: bytes = b"<agent_data/>") -> Path:
        """A file on this side, with the mode that a packet usually has."""
        path = self.directory / "outgoing" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o644)
        return path

    def _run(self, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, check=False, capture_output=True, text=True, input=stdin, timeout=PATIENCE
        )


@contextmanager
def machine(directory: Path) -> Iterator[Machine]:
    """A bare one: no accounts, no home, sshd as after its installation."""
    assert os.geteuid() == 0, "this test makes a machine of its own, which takes root"
    private = directory / "private"
    private.mkdir(parents=True)
    script = _BEGIN + expose([Path(sys.base_prefix), Path(sys.prefix), _checkout()])
    script += "echo ready\nexec sleep infinity </dev/null >/dev/null 2>&1\n"
    # --kill-child: whatever runs there ends with unshare, which ends with us.
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork"]
    command += ["--kill-child=KILL", "--mount-proc", "sh", "-c", script, "sh", str(private)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == b"ready\n", said + process.stdout.read()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        made = Machine(int(children), 0, directory)
        (made.root / "etc/ssh/sshd_config").write_text(SSHD_CONFIG)
        made.run("ssh-keygen", "-A")
        yield made
    finally:
        process.kill()
        process.communicate()


@contextmanager
def installed(directory: Path, *options: str) -> Iterator[Machine]:
    """One as an administrator has it after `init` and `uploads setup --install`; sshd runs."""
    with machine(directory) as bare:
        bare.run(COMMAND, "init", HOME)
        paths = Home(bare.home).instance("beta")
        (paths.folder / "data_in").mkdir(parents=True)
        paths.config.write_text('data_in = "data_in"\n')
        bare.dataserver("uploads", "setup", "--install", "--alias", ALIAS)
        with bare.sshd(*options) as port:
            yield replace(bare, port=port)


def pretend(host: Machine, program: str, script: str) -> None:
    """Have a shell script in the place of ``program`` there."""
    (host.root / "run/pretended").write_text(f"#!/bin/sh\n{script}")
    host.run("chmod", "755", "/run/pretended")
    host.run("mount", "--bind", "/run/pretended", program)


def make_key(path: Path, kind: str = "ed25519") -> None:
    """A new pair of keys, ``path`` and ``path.pub``, if there is none yet."""
    if not path.exists():
        subprocess.run(
            ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)],
            check=True,
            stdin=subprocess.DEVNULL,
        )


def public(key: Path) -> str:
    return key.with_name(f"{key.name}.pub").read_text()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One machine that takes uploads, for all the tests of a module."""
    with installed(tmp_path_factory.mktemp("machine")) as made:
        yield made


@pytest.fixture(scope="module")
def agent(host: Machine) -> Agent:
    """Somebody who may upload there."""
    return host.agent("web1")


@pytest.fixture(scope="module")
def sharing(host: Machine, agent: Agent) -> Iterator[Agent]:
    """The same agent; all that it does goes over one connection to each account."""
    with (
        host.sshd_for_sharing() as port,
        replace(agent, port=port).sharing(UPLOAD, SCP) as made,
    ):
        yield made


@pytest.fixture(autouse=True)
def unchanged(host: Machine, agent: Agent) -> Iterator[None]:
    """A packet lies in each drop directory, and everything in the home stays as it is."""
    for folder in ("data_in", "instances/beta/data_in"):
        packet = host.home / folder / "victim.1.data"
        packet.write_bytes(b"secret")
        host.run("chown", f"{UPLOAD}:{UPLOAD}", HOME / folder / packet.name)
        packet.chmod(0o240)
    before = host.everything()
    yield
    # This one is the real machine's.
    elsewhere = list(Path("/tmp").glob("pwned*"))
    for path in elsewhere:
        path.unlink()
    assert elsewhere == []
    assert host.everything() == before


def _checkout() -> Path:
    return Path(__file__).parents[2]


def expose(paths: Sequence[Path]) -> str:
    """Shell commands that let everybody there read what lies in folders closed to others."""
    lines = []
    closed = [(path, top) for path in paths if (top := _closed(path))]
    for number, (path, _) in enumerate(closed):
        lines += [f"mkdir '/run/{number}'", f"mount --bind '{path}' '/run/{number}'"]
    for top in {top for _, top in closed}:
        lines.append(f"mount -t tmpfs -o mode=755 private '{top}'")
    for number, (path, _) in enumerate(closed):
        lines += [f"mkdir -p '{path}'", f"mount --bind '/run/{number}' '{path}'"]
    return "".join(f"{line}\n" for line in lines)


def _closed(path: Path) -> Path | None:
    """The outermost folder on the way to ``path`` that others may not enter."""
    for each in reversed([path, *path.parents]):
        if not each.stat().st_mode & 0o001:
            return each
    return None
