"""An agent's key opens no shell, runs nothing, forwards nothing; other accounts are as before."""

from __future__ import annotations

import contextlib
import shlex
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.sshd import HOME, REFUSAL, SCP, UPLOAD, Agent, Machine, host, public, unchanged
from tests.support.uploads import free_port

__all__ = ["host", "unchanged"]

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
    @pytest.mark.parametrize("account", BOTH)
    @pytest.mark.parametrize("command", ["id", "sh", "touch /tmp/pwned", "internal-sftp", "ls /"])
    def test_no_command_is_run(self, agent: Agent, account: str, command: str) -> None:
        done = agent.ssh(account, command)
        assert "uid=" not in done.stdout
        assert "etc" not in done.stdout
        if account == SCP:
            assert (done.returncode, done.stderr) == (1, REFUSAL)

    @pytest.mark.parametrize("account", BOTH)
    @pytest.mark.parametrize("options", [(), ("-tt",)])
    def test_no_shell_is_given(self, agent: Agent, account: str, options: tuple[str, ...]) -> None:
        done = agent.ssh(account, *options, stdin="id; touch /tmp/pwned\n")
        assert "uid=" not in done.stdout + done.stderr
        assert done.returncode != 0

    @pytest.mark.parametrize("account", BOTH)
    def test_no_terminal_is_given(self, agent: Agent, account: str) -> None:
        assert "PTY allocation request failed" in agent.ssh(account, "-tt", "id").stderr

    def test_the_account_of_the_old_protocol_speaks_no_sftp(self, agent: Agent) -> None:
        assert agent.sftp(SCP, "ls").returncode != 0
        assert agent.ssh(SCP, "-s", "sftp").returncode == 1

    @pytest.mark.parametrize("user", ["root", "dataserver", "nobody", "plain"])
    def test_the_key_opens_no_other_account(self, agent: Agent, host: Machine, user: str) -> None:
        assert "Permission denied" in agent.ssh(user, "id").stderr


class TestNoForwarding:
    @pytest.mark.parametrize("account", BOTH)
    def test_no_connection_is_made_from_there(self, agent: Agent, account: str) -> None:
        done = agent.ssh(account, f"-W127.0.0.1:{agent.port}")
        assert "SSH-2.0" not in done.stdout
        assert done.returncode != 0

    @pytest.mark.parametrize("account", BOTH)
    @pytest.mark.parametrize("kind", ["-L", "-D", "unix"])
    def test_no_tunnel_leads_there(
        self, agent: Agent, host: Machine, account: str, kind: str
    ) -> None:
        local = free_port()
        target = str(HOME / "bell") if kind == "unix" else f"127.0.0.1:{agent.port}"
        option = f"-D{local}" if kind == "-D" else f"-L{local}:{target}"
        with listening(host), tunnel(agent, account, option):
            assert answer(local, agent.port, socks=kind == "-D") == b""

    @pytest.mark.parametrize("account", BOTH)
    @pytest.mark.parametrize("kind", ["port", "unix"])
    def test_nothing_listens_there(
        self, agent: Agent, host: Machine, account: str, kind: str
    ) -> None:
        where = str(free_port()) if kind == "port" else "/tmp/pwned.sock"
        target = f"-R{where}:127.0.0.1:{agent.port}"
        done = agent.ssh(account, "-N", "-oExitOnForwardFailure=yes", target)
        assert "remote port forwarding failed" in done.stderr
        assert done.returncode == 255

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
def tunnel(agent: Agent, account: str, option: str) -> Iterator[None]:
    """An ssh that listens here for connections to there."""
    command = agent.command(account, "-N", "-oExitOnForwardFailure=yes", option)
    port = int(shlex.split(option[2:].replace(":", " "))[0])
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and process.poll() is None:
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                time.sleep(0.02)
            yield
        finally:
            process.kill()


def answer(local: int, port: int, *, socks: bool) -> bytes:
    """What comes through a tunnel, after the greeting of a SOCKS 4 proxy if it is one."""
    with (
        contextlib.suppress(ConnectionResetError),
        socket.create_connection(("127.0.0.1", local), 10) as connection,
    ):
        if socks:
            connection.sendall(struct.pack(">BBH", 4, 1, port) + socket.inet_aton("127.0.0.1"))
            connection.sendall(b"\0")
            if connection.recv(8)[1:2] != b"\x5a":
                return b""
        return connection.recv(100)
    return b""
