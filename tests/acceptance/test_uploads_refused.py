"""Through an agent's key nothing is read, listed, renamed, removed, or written elsewhere."""

from __future__ import annotations

import itertools
import stat
import struct
import subprocess

import pytest

from tests.support import rawssh
from tests.support.failures import failures
from tests.support.rawssh import DENIED, NOTHING, Sftp, mode, record, sink, text
from tests.support.sshd import (
    HOME,
    REFUSAL,
    SCP,
    UPLOAD,
    Agent,
    Machine,
    agent,
    host,
    sharing,
    unchanged,
)
from tests.support.waiting import PATIENCE

__all__ = ["agent", "host", "sharing", "unchanged"]

#: Account, and the option with which scp speaks the protocol of that account.
WAYS = {UPLOAD: (), SCP: ("-O",)}


class TestSftpOnlyWrites:
    COMMANDS = (
        "get /data_in/victim.1.data {here}",
        "get /instances/main/instance.toml {here}",
        "get /uploads/authorized_keys {here}",
        "ls /data_in",
        "ls /",
        "rename /data_in/victim.1.data /data_in/other.1.data",
        "rename /data_in/victim.1.data /instances/beta/data_in/other.1.data",
        "rm /data_in/victim.1.data",
        "mkdir /data_in/pwned",
        "rmdir /instances/beta/data_in",
        "chmod 777 /data_in/victim.1.data",
        "chmod 777 /data_in",
        "chown 0 /data_in/victim.1.data",
        "ln /data_in/victim.1.data /data_in/pwned",
        "ln -s / /data_in/pwned",
        "df /",
    )

    def test_a_command_is_refused(self, host: Machine, sharing: Agent) -> None:
        here = sharing.directory / "got"

        def is_refused(command: str) -> None:
            done = sharing.sftp(UPLOAD, command.format(here=here))
            assert done.returncode != 0
            assert not here.exists() or here.read_bytes() == b""

        assert failures(is_refused, self.COMMANDS) == {}
        assert takes_packets(host, sharing)

    def test_every_other_request_is_refused(self, agent: Agent) -> None:
        victim, other = text("/data_in/victim.1.data"), text("/data_in/pwned")
        with Sftp(agent.command(UPLOAD)) as sftp:
            handle = sftp.open("/data_in/victim.1.data", rawssh.WRITING)
            requests = {
                "read": (rawssh.READ, handle, struct.pack(">QI", 0, 100)),
                "lstat": (rawssh.LSTAT, victim),
                "fstat": (rawssh.FSTAT, handle),
                "setstat": (rawssh.SETSTAT, victim, mode(0o666)),
                "opendir": (rawssh.OPENDIR, text("/data_in")),
                "readdir": (rawssh.READDIR, handle),
                "remove": (rawssh.REMOVE, victim),
                "mkdir": (rawssh.MKDIR, other, NOTHING),
                "rmdir": (rawssh.RMDIR, text("/data_in")),
                "rename": (rawssh.RENAME, victim, other),
                "readlink": (rawssh.READLINK, text("/var/spool/pandora/data_in")),
                "symlink": (rawssh.SYMLINK, other, text("/")),
            }
            extended = {
                "posix-rename@openssh.com": (victim, other),
                "hardlink@openssh.com": (victim, other),
                "statvfs@openssh.com": (text("/"),),
                "fstatvfs@openssh.com": (handle,),
                "lsetstat@openssh.com": (victim, mode(0o666)),
                "fsync@openssh.com": (handle,),
                "expand-path@openssh.com": (text("~"),),
                "copy-data": (handle, struct.pack(">QQ", 0, 0), handle, struct.pack(">Q", 0)),
                "users-groups-by-id@openssh.com": (text(b"\0\0\0\0"), text(b"\0\0\0\0")),
            }
            answers = {name: sftp.ask(*request) for name, request in requests.items()}
            for name, parts in extended.items():
                answers[name] = sftp.ask(rawssh.EXTENDED, text(name), *parts)
        for name, code in answers.items():
            assert code in (DENIED, rawssh.UNSUPPORTED), name
        assert {answers[name] for name in requests} == {DENIED}

    def test_a_file_opened_for_reading_and_writing_is_not_read(self, agent: Agent) -> None:
        with Sftp(agent.command(UPLOAD)) as sftp:
            for path in ("/instances/main/instance.toml", "/data_in/README.md"):
                handle = sftp.open(path, rawssh.READING)
                assert sftp.ask(rawssh.READ, handle, struct.pack(">QI", 0, 100)) == DENIED

    def test_nothing_is_created_with_rights_for_others(self, host: Machine, agent: Agent) -> None:
        with Sftp(agent.command(UPLOAD)) as sftp:
            sftp.open("/data_in/x.1.data", attributes=mode(0o7777))
        made = host.home / "data_in/x.1.data"
        bits = stat.S_IMODE(made.stat().st_mode)
        made.unlink()
        assert bits & 0o777 == 0o240


class TestNowhereElse:
    TARGETS = (
        "/tmp/pwned", "/pwned", "/", "/instances/", "/instances/main/instance.toml",
        "/instances/main/", "/instances/main/disabled", "/uploads/authorized_keys", "/uploads/",
        "/dataserver.toml", "/var/", "/var/spool/", "/data_in/../pwned", "/data_in/README.md",
        "/data_in/no/pwned", "/instances/beta/data_in/../instance.toml", "/etc/passwd", "pwned",
        "/etc/ssh/", "..", "../../../tmp/", "~/pwned",
    )  # fmt: skip

    def test_nothing_is_written(self, host: Machine, sharing: Agent) -> None:
        packet = sharing.packet("pwned", b"pwned")

        def is_refused(case: tuple[str, str]) -> None:
            account, path = case
            assert sharing.scp(account, *WAYS[account], packet, f":{path}").returncode != 0

        assert failures(is_refused, itertools.product(WAYS, self.TARGETS)) == {}
        assert takes_packets(host, sharing)

    def test_no_folder_is_copied(self, host: Machine, sharing: Agent) -> None:
        folder = sharing.packet("pwned").parent

        def is_refused(account: str) -> None:
            done = sharing.scp(account, "-r", *WAYS[account], folder, ":/data_in/")
            assert done.returncode != 0

        assert failures(is_refused, WAYS) == {}
        assert takes_packets(host, sharing)

    def test_nothing_is_fetched(self, host: Machine, sharing: Agent) -> None:
        here = sharing.directory / "fetched"
        paths = ("/data_in/victim.1.data", "/etc/passwd", "/data_in")

        def is_refused(case: tuple[str, str]) -> None:
            account, path = case
            assert sharing.scp(account, *WAYS[account], f":{path}", here).returncode != 0
            assert not here.exists() or here.read_bytes() == b""

        assert failures(is_refused, itertools.product(WAYS, paths)) == {}
        assert takes_packets(host, sharing)

    @pytest.mark.parametrize("account", [UPLOAD, SCP])
    def test_over_a_connection_of_its_own_it_is_the_same(self, agent: Agent, account: str) -> None:
        packet = agent.packet("pwned", b"pwned")
        done = agent.scp(account, *WAYS[account], packet, ":/instances/main/instance.toml")
        assert done.returncode != 0
        assert agent.scp(account, *WAYS[account], ":/etc/passwd", packet).returncode != 0
        assert packet.read_bytes() == b"pwned"


class TestOldProtocol:
    COMMANDS = (
        "scp -t /data_in; touch /tmp/pwned", "scp -t /data_in && id", "scp -t /data_in|id",
        "scp -t $(touch /tmp/pwned)", "scp -t `touch /tmp/pwned`", "scp -t '$(touch /tmp/pwned)'",
        "scp -t /data_in\ntouch /tmp/pwned", "scp\n-t /data_in", "scp -t -oProxyCommand=id",
        "scp -t -S /bin/sh /data_in", "scp -S/bin/sh -t /data_in", "scp -tS /bin/sh",
        "scp -f /data_in/victim.1.data", "scp -t -f /data_in/victim.1.data", "scp -tf /data_in",
        "scp -r -t /data_in", "scp -tr /data_in", "scp -t", "scp", "scp ", "scp -t ",
        "scp /data_in", "scp -- /data_in", "scp -t - /data_in", "scp -t /data_in /tmp",
        "scp -t /data_in/ /tmp/",
        "scp -t /data_in/*", "scp -t /data_in/victim*", "scp -t /data_in/../uploads",
        "scp -t /data_in/..", "scp -t /data_in/.", "scp -t /data_in/.pwned",
        "scp -t /data_in/-pwned",
        "scp -t /instances/../data_in", "scp -t /instances/beta/../main/data_in",
        "scp -t /instances//data_in", "scp -t /instances/none/data_in", "scp -t /instances/main",
        "scp -t //data_in", "scp -t data_in", "scp -t \"'/data_in'\"", "scp -t '/data_in",
        "scp -t '",
        "scp -t #", "scp -t main", "scp -t /uploads/paths", "scp -t /data_in/a/b",
        "scp -t /data_in/a b", "scp -t /data_in/\xe9", "scp  -t /data_in", " scp -t /data_in",
        "SCP -t /data_in", "/tmp/scp -t /data_in", "scpx -t /data_in", "rsync --server . /data_in",
        f"scp -t {HOME}x/data_in", f"scp -t {HOME}", f"scp -t {HOME}/uploads",
        "scp -t " + "A" * 9000,
    )  # fmt: skip

    def test_what_is_no_upload_is_refused_in_one_line(self, host: Machine, sharing: Agent) -> None:
        def is_refused(command: str) -> None:
            done = raw(sharing, command, record("pwned", b"pwned"))
            assert done == (1, b"", REFUSAL)

        assert failures(is_refused, self.COMMANDS) == {}
        assert takes_packets(host, sharing)

    RECORDS = (
        record("../pwned", b"x"),
        record("sub/pwned", b"x"),
        record("/tmp/pwned", b"x"),
        record("..", b"x"),
        record(".", b"x"),
        record("", b"x"),
        b"D0755 0 pwned\n" + record("x", b"x") + b"E\n",
        b"D0755 0 ..\n" + record("pwned", b"x") + b"E\n",
        b"Cnonsense\n",
        b"C0644 -1 pwned\n",
        b"C0644 99999999999999999999999 pwned\n",
        b"\0" * 4096,
        b"\xff" * 4096,
    )

    def test_a_record_that_leads_elsewhere_is_refused(self, host: Machine, sharing: Agent) -> None:
        def is_refused(sent: bytes) -> None:
            code, _ = sink(sharing.command(SCP, "scp -t /data_in/"), sent)
            assert code != 0

        assert failures(is_refused, self.RECORDS) == {}
        assert takes_packets(host, sharing)

    def test_nothing_is_created_with_rights_for_others(self, host: Machine, agent: Agent) -> None:
        command = agent.command(SCP, "scp -p -t /data_in/")
        code, _ = sink(command, b"T0 0 0 0\n" + record("x.1.data", b"x", "4777"))
        made = host.home / "data_in/x.1.data"
        bits = stat.S_IMODE(made.stat().st_mode)
        made.unlink()
        assert code == 0
        assert bits == 0o240


def takes_packets(host: Machine, agent: Agent) -> bool:
    """Whether it is not simply everything that is refused, over the connections that were used."""
    packet = agent.packet("good.1.data")
    codes = []
    for account, option in WAYS.items():
        codes.append(agent.scp(account, *option, packet, ":/data_in/").returncode)
        (host.home / "data_in/good.1.data").unlink()
    return codes == [0, 0]


def raw(agent: Agent, command: str, sent: bytes) -> tuple[int, bytes, str]:
    words = agent.command(SCP, command)
    done = subprocess.run(words, input=sent, capture_output=True, check=False, timeout=PATIENCE)
    return done.returncode, done.stdout, done.stderr.decode()
