"""What agents upload through a real sshd arrives whole, and only the service user can read it."""

from __future__ import annotations

import itertools
import os
import subprocess

import pytest

from tests.support.commands import COMMAND
from tests.support.failures import failures
from tests.support.rawssh import Sftp, record, sink
from tests.support.sshd import (
    ALIAS,
    HOME,
    SCP,
    UPLOAD,
    Agent,
    Machine,
    agent,
    host,
    public,
    sharing,
)
from tests.support.waiting import PATIENCE

__all__ = ["agent", "host", "sharing"]

PACKET = (
    b'<agent_data agent_name="web1" timestamp="2026/01/01 00:00:00">'
    b"<module><name>load</name><type>generic_data</type><data>1.5</data></module></agent_data>"
)
#: Account, and the option with which scp speaks the protocol of that account.
WAYS = {UPLOAD: (), SCP: ("-O",)}


@pytest.fixture(autouse=True)
def empty(host: Machine) -> None:
    """Nothing is left of the test before."""
    remove_packets(host)


def remove_packets(host: Machine) -> None:
    for folder in (host.home / "data_in", host.home / "instances/beta/data_in"):
        for path in folder.glob("*.data"):
            path.unlink()


def send(agent: Agent, account: str, *args: object) -> subprocess.CompletedProcess[str]:
    return agent.scp(account, *WAYS[account], *args)


def assert_quiet(done: subprocess.CompletedProcess[str]) -> None:
    """An agent runs from cron: what it is told without need ends up in somebody's mail."""
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


PATHS = {
    "/data_in/": "main",
    "/data_in": "main",
    "/data_in/web1.1.data": "main",
    "/instances/beta/data_in/": "beta",
    "/instances/beta/data_in/web1.1.data": "beta",
    ALIAS: "main",
    f"{ALIAS}/": "main",
    f"{ALIAS}/web1.1.data": "main",
}


def test_a_packet_arrives_whatever_the_drop_directory_is_called(
    host: Machine, sharing: Agent
) -> None:
    packet = sharing.packet("web1.1.data", PACKET)

    def arrives(case: tuple[str, str]) -> None:
        account, path = case
        instance = PATHS[path]
        remove_packets(host)
        assert_quiet(send(sharing, account, packet, f":{path}"))
        assert host.files(instance) == {"web1.1.data": PACKET}
        folder = HOME / ("data_in" if instance == "main" else "instances/beta/data_in")
        rights = host.run("stat", "-c", "%U %G %a", folder / "web1.1.data").stdout
        assert rights == f"{account} dataserver-upload 240\n"

    assert failures(arrives, itertools.product(WAYS, PATHS)) == {}


@pytest.mark.parametrize("account", WAYS)
def test_a_packet_arrives_over_a_connection_of_its_own(
    host: Machine, agent: Agent, account: str
) -> None:
    assert_quiet(send(agent, account, agent.packet("web1.1.data", PACKET), ":/data_in/"))
    assert host.files() == {"web1.1.data": PACKET}


def test_the_old_protocol_knows_the_real_path_too(host: Machine, agent: Agent) -> None:
    packet = agent.packet("web1.1.data", PACKET)
    for path in (
        f"{HOME}/data_in",
        f"{HOME}/instances/beta/data_in/",
        f"'{HOME}/data_in/x.1.data'",
    ):
        assert_quiet(send(agent, SCP, packet, f":{path}"))
    assert host.files().keys() == {"web1.1.data", "x.1.data"}
    assert host.files("beta").keys() == {"web1.1.data"}


@pytest.mark.parametrize("account", WAYS)
def test_several_packets_arrive_at_once(host: Machine, agent: Agent, account: str) -> None:
    names = [f"web1.{number}.data" for number in range(20)] + ["a b & ünï.1.data"]
    assert_quiet(send(agent, account, *(agent.packet(name) for name in names), ":/data_in/"))
    assert host.files().keys() == set(names)


def test_sftp_puts_packets(host: Machine, agent: Agent) -> None:
    packets = [agent.packet(f"web1.{number}.data", PACKET) for number in (1, 2)]
    done = agent.sftp(
        UPLOAD,
        f"put {packets[0]} /data_in/",
        f"put {packets[1]} data_in/other.2.data",
        "cd /instances/beta/data_in",
        f"put {packets[1]}",
    )
    assert done.returncode == 0, done.stderr
    assert host.files().keys() == {"web1.1.data", "other.2.data"}
    assert host.files("beta") == {"web1.2.data": PACKET}


@pytest.mark.parametrize("account", WAYS)
def test_modes_and_times_asked_for_with_p_do_no_harm(
    host: Machine, agent: Agent, account: str
) -> None:
    packet = agent.packet("web1.1.data", PACKET)
    os.utime(packet, (1_700_000_000, 1_700_000_000))
    assert_quiet(send(agent, account, "-p", packet, ":/data_in/"))
    found = (host.home / "data_in/web1.1.data").stat()
    assert found.st_mtime == 1_700_000_000
    assert found.st_mode & 0o7040 == 0o040
    assert_quiet(send(agent, account, packet, ":/data_in/"))


@pytest.mark.parametrize("account", WAYS)
@pytest.mark.parametrize("begun", [PACKET[:70], PACKET + b"<tail of a longer packet/>"])
def test_a_packet_sent_again_replaces_what_a_cut_upload_left(
    host: Machine, agent: Agent, account: str, begun: bytes
) -> None:
    path = "/data_in/web1.1.data"
    if account == UPLOAD:
        with Sftp(agent.command(UPLOAD)) as sftp:
            sftp.write(sftp.open(path), 0, begun)
    else:
        code, _ = sink(agent.command(SCP, f"scp -t {path}"), record("x", begun)[:-1])
        assert code != 0
    assert host.files() == {"web1.1.data": begun}
    assert_quiet(send(agent, account, agent.packet("web1.1.data", PACKET), ":/data_in/"))
    assert host.files() == {"web1.1.data": PACKET}


@pytest.mark.parametrize("account", WAYS)
def test_two_uploads_of_one_packet_at_the_same_time_leave_it_whole(
    host: Machine, agent: Agent, account: str
) -> None:
    packet = agent.packet("web1.1.data", PACKET * 20_000)
    command = ["scp", *WAYS[account], "-P", str(agent.port), *agent.options]
    target = f"{account}@127.0.0.1:/data_in/"
    uploads = [subprocess.Popen([*command, str(packet), target]) for _ in range(2)]
    assert [upload.wait(PATIENCE) for upload in uploads] == [0, 0]
    assert host.files() == {"web1.1.data": packet.read_bytes()}


def test_without_pam_the_accounts_are_not_locked(host: Machine, agent: Agent) -> None:
    with host.sshd("-o", "UsePAM=no") as port:
        elsewhere = Agent(port, agent.key, agent.directory)
        for account in WAYS:
            name = f"{account}.1.data"
            assert_quiet(send(elsewhere, account, elsewhere.packet(name), ":/data_in/"))
    assert host.files().keys() == {f"{account}.1.data" for account in WAYS}


@pytest.mark.parametrize("account", WAYS)
def test_a_key_that_was_removed_opens_nothing(host: Machine, account: str) -> None:
    leaver = host.agent("leaver")
    packet = leaver.packet("leaver.1.data")
    assert_quiet(send(leaver, account, packet, ":/data_in/"))
    host.dataserver("uploads", "key", "remove", "leaver")
    done = send(leaver, account, packet, ":/data_in/")
    assert done.returncode != 0
    assert "Permission denied (publickey)" in done.stderr


def test_a_key_bound_to_addresses_opens_nothing_from_elsewhere(host: Machine) -> None:
    here = host.agent("branch")
    packet = here.packet("branch.1.data")
    host.dataserver("uploads", "key", "remove", "branch")
    for addresses, code in (("192.0.2.0/24", 255), ("192.0.2.7,127.0.0.0/8", 0)):
        host.dataserver(
            "uploads", "key", "add", "branch", "-", "--from", addresses, stdin=public(here.key)
        )
        assert send(here, UPLOAD, packet, ":/data_in/").returncode == code
        host.dataserver("uploads", "key", "remove", "branch")


def test_the_service_user_takes_the_packets_in(host: Machine, agent: Agent) -> None:
    host.run("chown", "dataserver:dataserver", HOME / "var")
    for account in WAYS:
        packet = agent.packet(f"{account}.1.data", PACKET.replace(b"web1", account.encode()))
        assert_quiet(send(agent, account, packet, ":/data_in/"))
    as_service = ("setpriv", "--reuid=dataserver", "--regid=dataserver", "--init-groups")
    host.run(*as_service, COMMAND, "--home", HOME, "run", "--once")
    assert host.files() == {}
    listed = host.run(*as_service, COMMAND, "--home", HOME, "agents").stdout
    assert all(account in listed for account in WAYS)


def test_nobody_but_the_service_user_can_look_into_a_drop_directory(
    host: Machine, agent: Agent
) -> None:
    assert_quiet(send(agent, UPLOAD, agent.packet("web1.1.data", PACKET), ":/data_in/"))
    file = HOME / "data_in/web1.1.data"
    for user, group, readable, listed in (
        ("dataserver", "dataserver", True, True),
        ("dataserver-upload", "dataserver-upload", False, False),
        ("dataserver-scp", "dataserver-upload", True, False),
        ("nobody", "nogroup", False, False),
    ):
        become = ("setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups")
        assert (host.run(*become, "cat", file, check=False).returncode == 0) is readable, user
        assert (host.run(*become, "ls", file.parent, check=False).returncode == 0) is listed, user
