"""An agent's key opens no shell, runs nothing, forwards nothing; other accounts are as before."""

from __future__ import annotations

import contextlib
import itertools
import shlex
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.support.failures import failures
from tests.support.ports import free_port
from tests.support.sshd import (
    HOME,
    REFUSAL,
    SCP,
    UPLOAD,
    Agent,
    Machine,
    host,
    public,
    sharing,
    unchanged,
)
from tests.support.uploads import wait_for_port
from tests.support.waiting import PATIENCE

__all__ = ["host", "sharing", "unchanged"]

BOTH = (UPLOAD, SCP)


@pytest.fixture(scope="module", params=["restricted", "unrestricted"])
def agent(host: Machine, request: pytest.FixtureRequest) -> Agent:
    """Somebody who may upload; also with a key whose line restricts nothing: sshd's settings
    have to hold by themselves."""
    if request.param == "restricted":
        return host.agent("web1")
    loose = host.agent("loose")
    host.dataserver("uploads", "key", "remove", "loose")
    keys = host.home / "uploads/authorized_keys"
    with keys.open("a") as file:
        file.write(public(loose.key))
    return loose


class TestNoProgram:
    def test_no_command_is_run(self, sharing: Agent) -> None:
        commands = ("id", "sh", "touch /tmp/pwned", "internal-sftp", "ls /")

        def is_not_run(case: tuple[str, str]) -> None:
            account, command = case
            done = sharing.ssh(account, command)
            assert "uid=" not in done.stdout
            assert "etc" not in done.stdout
            if account == SCP:
                assert (done.returncode, done.stderr) == (1, REFUSAL)

        assert failures(is_not_run, itertools.product(BOTH, commands)) == {}

    def test_no_shell_and_no_terminal_is_given(self, agent: Agent) -> None:
        def is_refused(case: tuple[str, tuple[str, ...]]) -> None:
            account, options = case
            done = agent.ssh(account, *options, stdin="id; touch /tmp/pwned\n")
            assert "uid=" not in done.stdout + done.stderr
            assert done.returncode != 0
            assert not options or "PTY allocation request failed" in done.stderr

        ways = ((), ("-tt",), ("-tt", "id"))
        assert failures(is_refused, itertools.product(BOTH, ways)) == {}

    def test_the_account_of_the_old_protocol_speaks_no_sftp(self, agent: Agent) -> None:
        assert agent.sftp(SCP, "ls").returncode != 0
        assert agent.ssh(SCP, "-s", "sftp").returncode == 1

    def test_the_key_opens_no_other_account(self, agent: Agent) -> None:
        def is_refused(user: str) -> None:
            assert "Permission denied" in agent.ssh(user, "id").stderr

        assert failures(is_refused, ("root", "dataserver", "nobody", "plain")) == {}


class TestNoForwarding:
    def test_no_connection_is_made_from_there(self, agent: Agent) -> None:
        def is_refused(account: str) -> None:
            done = agent.ssh(account, f"-W127.0.0.1:{agent.port}")
            assert "SSH-2.0" not in done.stdout
            assert done.returncode != 0

        assert failures(is_refused, BOTH) == {}

    def test_no_tunnel_leads_there(self, agent: Agent, host: Machine) -> None:
        def leads_nowhere(account: str) -> None:
            port, unix, socks = free_port(), free_port(), free_port()
            forwarded = (
                f"-L{port}:127.0.0.1:{agent.port}",
                f"-L{unix}:{HOME / 'bell'}",
                f"-D{socks}",
            )
            with tunnels(agent, account, *forwarded):
                assert answer(port, agent.port) == b""
                assert answer(unix, agent.port) == b""
                assert answer(socks, agent.port, socks=True) == b""

        with listening(host):
            assert failures(leads_nowhere, BOTH) == {}

    def test_nothing_listens_there(self, agent: Agent) -> None:
        def is_refused(case: tuple[str, str]) -> None:
            account, where = case
            target = f"-R{where}:127.0.0.1:{agent.port}"
            done = agent.ssh(account, "-N", "-oExitOnForwardFailure=yes", target)
            assert "remote port forwarding failed" in done.stderr
            assert done.returncode == 255

        places = (str(free_port()), "/tmp/pwned.sock")
        assert failures(is_refused, itertools.product(BOTH, places)) == {}

    @pytest.mark.parametrize("account", BOTH)
    def test_sshd_says_so_itself(self, host: Machine, account: str) -> None:
        said = effective(host, account)
        for no in (
            "allowagentforwarding", "allowtcpforwarding", "allowstreamlocalforwarding",
            "x11forwarding", "permittunnel", "permituserrc", "permittty", "gatewayports",
            "passwordauthentication", "kbdinteractiveauthentication",
        ):  # fmt: skip
            assert f"{no} no" in said
        assert "disableforwarding yes" in said
        assert [each for each in said if each.startswith("acceptenv")] == ["acceptenv LANG"]


def test_other_accounts_are_as_they_were(host: Machine, agent: Agent) -> None:
    drop_in = host.root / "etc/ssh/sshd_config.d/dataserver.conf"
    with_it = [effective(host, user) for user in ("root", "plain", "nobody")]
    content = drop_in.read_text()
    drop_in.unlink()
    without = [effective(host, user) for user in ("root", "plain", "nobody")]
    drop_in.write_text(content)
    assert with_it == without
    assert "forcecommand none" in with_it[1]
    assert effective(host, UPLOAD) != with_it[1]


def test_an_ordinary_account_still_works(host: Machine, agent: Agent) -> None:
    home = host.root / "var/lib/plain"
    if not home.exists():
        host.run("useradd", "--create-home", "--home-dir", "/var/lib/plain", "plain")
        host.run("usermod", "--password", "*", "plain")
    (home / ".ssh").mkdir(exist_ok=True)
    (home / ".ssh/authorized_keys").write_text(public(agent.key))
    try:
        assert "uid=" in agent.ssh("plain", "id").stdout
        assert "SSH-2.0" in agent.ssh("plain", f"-W127.0.0.1:{agent.port}").stdout
    finally:
        (home / ".ssh/authorized_keys").unlink()


def effective(host: Machine, user: str) -> list[str]:
    return host.run("sshd", "-T", "-C", f"user={user},host=x,addr=192.0.2.1").stdout.split("\n")


@contextlib.contextmanager
def listening(host: Machine) -> Iterator[None]:
    """A socket in the home, open to everybody, that greets whoever comes."""
    path = host.home / "bell"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o777)
        server.listen()
        thread = threading.Thread(target=greet, args=(server,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            path.unlink()


def greet(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"SSH-2.0 hello\n")


@contextlib.contextmanager
def tunnels(agent: Agent, account: str, *options: str) -> Iterator[None]:
    """An ssh that listens here for connections to there."""
    command = agent.command(account, "-N", "-oExitOnForwardFailure=yes", *options)
    ports = [int(shlex.split(option[2:].replace(":", " "))[0]) for option in options]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for port in ports:
                wait_for_port(port, process)
            yield
        finally:
            process.kill()


def answer(local: int, port: int, *, socks: bool = False) -> bytes:
    """What comes through a tunnel, after the greeting of a SOCKS 4 proxy if it is one."""
    with (
        contextlib.suppress(ConnectionResetError),
        socket.create_connection(("127.0.0.1", local), PATIENCE) as connection,
    ):
        if socks:
            connection.sendall(struct.pack(">BBH", 4, 1, port) + socket.inet_aton("127.0.0.1"))
            connection.sendall(b"\0")
            if connection.recv(8)[1:2] != b"\x5a":
                return b""
        return connection.recv(100)
    return b""
