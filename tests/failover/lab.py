"""The lab: a pair as an administrator sets it up, by the steps of its own README, and a database.

:class:`Lab`  two hosts with the real sshd, keepalived and data server; one MariaDB; an agent's key

What systemd does for keepalived is taken from the drop-in that `keepalived render` writes.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Engine, create_engine

from dataserver.vrrp.health import STATE_DIR
from dataserver.vrrp.renderer import INSTALLED
from tests.failover.clients import Agent, Fleet, Way, send
from tests.failover.host import PATIENCE, Host, Service, wait_until
from tests.failover.network import EAST, STORE, VIRTUAL, WEST, Network, inside
from tests.faults.corpus import File, corpus
from tests.support.commands import COMMAND
from tests.support.mariadb import MariaDB
from tests.support.sshd import HOME, SCP, UPLOAD, make_key, public

_VAR = HOME / "var"
_AS_SERVICE = "setpriv --reuid=dataserver --regid=dataserver --init-groups"
#: So many agents of one address knock at once; docs/uploads.md says so to administrators.
_SSHD_OPTIONS = "-o MaxStartups=200:30:500 -o PidFile=none"

SSHD = Service("sshd", f"/usr/sbin/sshd -D -e {_SSHD_OPTIONS}")
SERVER = Service("dataserver", f"{_AS_SERVICE} {COMMAND} --home {HOME} up")

#: Shorter than by default, since what is waited for is not what is tested.
_SETTINGS = {
    "timezone": "UTC",
    # Shorter than the agents' pauses, as with theirs of minutes.
    "settle": 0.2,
    "scan_interval": 0.5,
    "incomplete_after": 3.0,
    "database_timeout": 3.0,
    "connect_timeout": 3.0,
}
#: Side, account, and whether its packets are large ones over a slow line.
_AGENTS = (
    *((WEST, UPLOAD, False),) * 4,
    (WEST, SCP, False),
    # Speaking SFTP, scp does not keep to its limit.
    *((WEST, SCP, True),) * 2,
    *((EAST, UPLOAD, False),) * 3,
)
#: More packets of each agent than all faults together take.
_ROUNDS = 2_000
_PAIR = """\
virtual_addresses = ["{virtual}/24"]
advert_int = {advert_int}

[[host]]
name = "alpha"
address = "192.0.2.11/24"
interface = "eth0"
priority = 201

[[host]]
name = "beta"
address = "192.0.2.12/24"
interface = "eth0"
priority = 200

[check]
interval = 1
timeout = 3
fall = 3
rise = 2
"""


class Lab:
    """A pair that runs; make it with :func:`lab`."""

    def __init__(self, directory: Path, network: Network, database: MariaDB) -> None:
        self.directory = directory
        self.network = network
        self.database = database
        self.advert_int = 0.0
        self.key = directory / "agent"
        self.alpha = Host("alpha", directory / "alpha", network, side=WEST, number=11)
        self.beta = Host("beta", directory / "beta", network, side=EAST, number=12)
        self.hosts = (self.alpha, self.beta)
        self._keepalived: Service | None = None
        #: Every packet that agents made until now, and those that they will make, by agent.
        self.sent: list[File] = []
        self._files = _files()

    # -- setting up --------------------------------------------------------------

    def install(self) -> None:
        """Both hosts, as the documents have it; sshd and the server run, keepalived not yet."""
        make_key(self.key)
        database = f"mysql://agents@{STORE}:{self.database.port}/lab"
        settings = {"database": database, **_SETTINGS}
        for host in self.hosts:
            host.boot()
            host.run(COMMAND, "init", HOME)
            lines = [f"{key} = {json.dumps(value)}\n" for key, value in settings.items()]
            host.home.config.write_text("".join(lines), encoding="utf-8")
        self.alpha.run("ssh-keygen", "-A")
        for host in self.hosts:
            self._copy("etc/ssh", "ssh_host_*_key*", host)
            host.dataserver("uploads", "setup", "--install")
            # What `instances units --install` sees to where systemd is.
            host.run("install", "-d", "-o", "dataserver", "-g", "dataserver", "-m", "0751", _VAR)
        self.alpha.dataserver("uploads", "key", "add", "agents", "-", stdin=public(self.key))
        self._copy("lib/dataserver/uploads", "authorized_keys", self.beta)
        for host in self.hosts:
            host.start(SSHD)
            host.start(SERVER)

    def form_pair(self, advert_int: float) -> None:
        """keepalived on both, with these seconds between two signs of life."""
        was_running, self.advert_int = self._keepalived, advert_int
        folder = self.alpha.home.root / "keepalived"
        folder.mkdir(exist_ok=True)
        (folder / "pair.toml").write_text(_PAIR.format(virtual=VIRTUAL, advert_int=advert_int))
        self.alpha.dataserver("keepalived", "render")
        for host in self.hosts:
            if was_running:
                host.stop(was_running)
            self._copy("lib/dataserver", "keepalived", host)
            self._place(host)
        drop_in = (folder / "alpha" / "keepalived.service.conf").read_text()
        self._keepalived = as_service(drop_in)
        for host in self.hosts:
            host.start(self._keepalived)
        self.wait_settled()

    @property
    def keepalived(self) -> Service:
        assert self._keepalived is not None, "no pair was formed"
        return self._keepalived

    def start_all(self, host: Host) -> None:
        """As at its boot: keepalived last."""
        for service in (SERVER, SSHD, self.keepalived):
            host.start(service)

    def _copy(self, folder: str, what: str, host: Host) -> None:
        """From alpha's disk to another's, with owners and modes."""
        if host is not self.alpha:
            source, target = (each.directory / "disk" / folder for each in (self.alpha, host))
            host.run("sh", "-c", f"cp -a {shlex.quote(str(source))}/{what} {target}/")

    def _place(self, host: Host) -> None:
        """The files of its folder, where its README has them go."""
        folder = HOME / "keepalived" / host.name
        for name, place in INSTALLED.items():
            mode = (
                "0755"
                if (host.home.root / "keepalived" / host.name / name).stat().st_mode & 1
                else "0644"
            )
            host.run("install", "-D", "-o", "root", "-g", "root", "-m", mode, folder / name, place)

    # -- agents ------------------------------------------------------------------

    def fleet(self) -> Fleet:
        """Agents on both sides, with their next packets; they do not send yet."""
        outgoing = self.directory / "outgoing"
        outgoing.mkdir(exist_ok=True)
        way = self._way()
        return Fleet(
            [
                Agent(
                    self.network.clients[side],
                    dataclasses.replace(way, account=account, is_slow=is_slow),
                    files,
                    outgoing,
                )
                for files, (side, account, is_slow) in zip(self._files, _AGENTS, strict=True)
            ]
        )

    def send_again(self, files: Sequence[File]) -> None:
        """Upload packets from both sides, whoever had them before."""
        folder = self.directory / "again"
        folder.mkdir(exist_ok=True)
        for file in files:
            path = folder / file.name
            path.write_bytes(file.content)
            path.chmod(0o644)
            for side in self.network.clients.values():
                with inside(side):
                    assert send(self._way(), path) == (0, "")

    def _way(self) -> Way:
        known = self.directory / "known_hosts"
        if not known.exists():
            key = self.directory / "alpha/disk/etc/ssh/ssh_host_ed25519_key.pub"
            known.write_text(f"{VIRTUAL} {key.read_text()}")
        return Way(self.key, known)

    # -- looking -----------------------------------------------------------------

    @property
    def active(self) -> Host:
        """The one host that has the address."""
        (host,) = (host for host in self.hosts if host.has_address)
        return host

    def twin(self, host: Host) -> Host:
        return self.beta if host is self.alpha else self.alpha

    def wait(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        """Wait until ``condition()`` is true; where it fails, what everybody said."""
        wait_until(condition, lambda: f"{what}\n{self.tell()}", seconds)

    def wait_settled(self) -> None:
        """Wait until one host has the address, the other one has not, and both are well."""
        self.wait(self._is_settled, "a pair in good health")

    def _is_settled(self) -> bool:
        states = [said(host, "state").get("state") for host in self.hosts]
        return (
            sorted(map(str, states)) == ["BACKUP", "MASTER"]
            and [host.has_address for host in self.hosts] == [s == "MASTER" for s in states]
            and all(said(host, "health").get("result") == "healthy" for host in self.hosts)
            and all(said(host, "drop").get("result") == "takes" for host in self.hosts)
        )

    def wait_taken(self) -> None:
        """Wait until no packet lies on either host."""
        self.wait(lambda: not any(host.packets() for host in self.hosts), "empty drop directories")

    def locks_of(self, host: Host) -> int:
        """How many locks on rows a host's transactions have in the database."""
        query = (
            "SELECT COALESCE(SUM(t.trx_rows_locked), 0) FROM information_schema.innodb_trx t"
            " JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id"
            " WHERE p.host LIKE CONCAT(%s, ':%%')"
        )
        with inside(self.network.switch), closing(self.database.connect()) as conn:
            cursor = conn.cursor()
            cursor.execute(query, (host.store_address,))
            return int(cursor.fetchone()[0])

    def tell(self) -> str:
        """What there is to know when something went wrong."""
        return "\n".join(
            f"--- {host.name}: {service}\n{host.log(service, 1500)}"
            for host in self.hosts
            for service in ("keepalived", "dataserver", "sshd")
        )

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """The database, for reading."""
        with inside(self.network.switch):
            engine = create_engine(
                f"mysql+mysqldb://root@127.0.0.1:{self.database.port}/lab?charset=utf8mb4"
            )
            try:
                yield engine
            finally:
                engine.dispose()


def _files() -> list[Iterator[File]]:
    """The packets of each agent, in order."""
    count = len(_AGENTS)
    by_agent: dict[str, list[File]] = {}
    for file in corpus(count, _ROUNDS):
        by_agent.setdefault(file.agent, []).append(file)
    assert len(by_agent) == count
    return [iter(files) for files in by_agent.values()]


def said(host: Host, name: str) -> dict[str, str]:
    """What a program of keepalived's wrote down last on a host; empty: nothing."""
    if not host.is_on:
        return {}
    try:
        text = (host.root / STATE_DIR.relative_to("/") / name).read_text("utf-8")
    except OSError:
        return {}
    return dict(line.partition("=")[::2] for line in text.splitlines())


def as_service(drop_in: str) -> Service:
    """keepalived as systemd runs it with our drop-in."""

    def lines(key: str) -> Sequence[str]:
        return re.findall(rf"^{key}=-?(.+)$", drop_in, re.MULTILINE)

    (folder,) = lines("RuntimeDirectory")
    (mode,) = lines("RuntimeDirectoryMode")
    return Service(
        "keepalived",
        "/usr/sbin/keepalived --dont-fork --log-console --log-detail",
        (f"mkdir -p -m {mode} /run/{folder}", *lines("ExecStartPre")),
        # Its children end with it, or systemd sees to that.
        (*lines("ExecStopPost"), f"rm -rf /run/{folder}"),
    )


@contextmanager
def lab(directory: Path, *, advert_int: float) -> Iterator[Lab]:
    """A pair that is well and has nothing to do; gone with the block."""
    network = Network()
    database = MariaDB(directory / "mariadb", "--bind-address=0.0.0.0")
    made = None
    try:
        with inside(network.switch):
            database.start()
            database.execute(
                "CREATE DATABASE lab CHARACTER SET utf8mb4",
                "CREATE USER agents@'%'",
                "GRANT ALL ON lab.* TO agents@'%'",
            )
        made = Lab(directory, network, database)
        made.install()
        made.form_pair(advert_int)
        yield made
    finally:
        for host in made.hosts if made else ():
            host.close()
        database.stop()
        network.close()
