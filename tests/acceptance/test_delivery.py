"""However a packet is brought, it is taken when it is complete, whole, and only then."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import func, select

from dataserver.rules import entities
from dataserver.spool import directory, remove
from dataserver.spool.directory import Spool
from dataserver.spool.rejected import Rejected
from dataserver.spool.watch import Watch
from dataserver.store import schema
from tests.support import packets
from tests.support.commands import Run
from tests.support.databases import Database
from tests.support.packets import START
from tests.support.server import Place
from tests.support.uploads import Gate, Receiver, SshServer, ftp_put, ftp_server, ssh_server
from tests.support.waiting import wait_until

#: Kilobytes of the large packet, and bytes of its upload after which it is held back.
LARGE, HALF = 600, 400_000


def packet(agent: str, kilobytes: int) -> bytes:
    """A packet of about that size; it ends with the closing tag and no line end."""
    modules = "".join(
        f"<module><name>m{i}</name><data>{'7' * 980}</data></module>\n" for i in range(kilobytes)
    )
    return f"<agent_data agent_name='{agent}'>\n{modules}</agent_data>".encode()


PACKETS = {
    "small.1700000000.data": packet("small", 1),
    "large_1700000001.data": packet("large", LARGE),
    "middle.host.1700000002.data": packet("middle", 40),
}


@pytest.fixture
def data_in(tmp_path: Path) -> Path:
    path = tmp_path / "data_in"
    path.mkdir()
    return path


@pytest.fixture
def receiver(tmp_path: Path, data_in: Path) -> Iterator[Receiver]:
    rejected = Rejected(tmp_path / "var" / "rejected")
    bell = Watch(data_in)
    bell.start()
    with Spool(data_in, max_packet=1 << 20, checksum="ignore", rejected=rejected) as spool:
        yield Receiver(spool, bell)
    bell.stop()


@pytest.fixture
def sources(tmp_path: Path) -> Sequence[Path]:
    """The packets as the agents have them, before they are brought."""
    directory = tmp_path / "outgoing"
    directory.mkdir()
    for name, content in PACKETS.items():
        (directory / name).write_bytes(content)
    return sorted(directory.iterdir())


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("ssh") / "server") as server:
        yield server


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Holds back the second half of what is uploaded through it, until it is opened."""
    gate = Gate(tmp_path / "gate", HALF)
    gate.close()
    yield gate
    gate.open()


def bring(
    receiver: Receiver,
    *commands: Sequence[str],
    status: Sequence[int] = (0,),
    half_way: Callable[[], object] = lambda: None,
) -> None:
    """Start the uploads, take what comes while they run, and see that they succeed."""
    with running(*commands) as uploads:
        half_way()
        receiver.take(len(PACKETS))
        assert all(upload.wait() in status for upload in uploads)
    # What was touched when it was about to leave is still there.
    receiver.look()


def see_half(receiver: Receiver, gate: Gate) -> Callable[[], None]:
    """Look at the large packet while it is half there, then let the rest of it come."""

    def half_way() -> None:
        receiver.look_until(lambda: receiver.partial["large_1700000001.data"], "half a packet")
        gate.open()

    return half_way


@contextmanager
def running(*commands: Sequence[str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Programs that are killed if they still run when the test is over."""
    uploads = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for command in commands]
    try:
        yield uploads
    finally:
        for upload in uploads:
            upload.kill()
            upload.wait()


def assert_taken(receiver: Receiver) -> None:
    """Everything has come, byte for byte, and nothing is left."""
    assert receiver.taken.keys() == PACKETS.keys()
    assert receiver.taken == PACKETS
    assert os.listdir(receiver.spool.path) == []


def test_scp(receiver, sources, ssh, data_in, gate) -> None:
    through = ("-S", str(gate.program), "-P", str(ssh.port))
    target = f"{ssh.user}@127.0.0.1:{data_in}/"
    command = ("scp", *ssh.options, *through, *map(str, sources), target)
    bring(receiver, command, half_way=see_half(receiver, gate))
    assert_taken(receiver)


def test_scp_with_the_protocol_of_old_agents(receiver, sources, ssh, data_in, gate) -> None:
    through = ("-O", "-S", str(gate.program), "-P", str(ssh.port))
    target = f"{ssh.user}@127.0.0.1:{data_in}/"
    command = ("scp", *ssh.options, *through, *map(str, sources), target)
    bring(receiver, command, half_way=see_half(receiver, gate))
    assert_taken(receiver)


def test_sftp(receiver, sources, ssh, data_in, tmp_path, gate) -> None:
    batch = tmp_path / "batch"
    batch.write_text("".join(f"put {source} {data_in}/{source.name}\n" for source in sources))
    through = ("-S", str(gate.program), "-P", str(ssh.port), "-b", str(batch))
    command = ("sftp", "-q", *ssh.options, *through, f"{ssh.user}@127.0.0.1")
    bring(receiver, command, half_way=see_half(receiver, gate))
    assert_taken(receiver)


def test_ftp(receiver, sources, data_in) -> None:
    def half_way(name: str) -> None:
        wait_until(lambda: receiver.partial[name], f"a look at half of {name}")

    with ftp_server(data_in) as port:
        uploads = [
            threading.Thread(
                target=ftp_put, args=(port, each, each.name, partial(half_way, each.name))
            )
            for each in sources
        ]
        for upload in uploads:
            upload.start()
        receiver.take(len(PACKETS))
        for upload in uploads:
            upload.join()
    receiver.look()
    assert_taken(receiver)


def test_cp(receiver, sources, data_in) -> None:
    bring(receiver, ("cp", *map(str, sources), str(data_in)))
    assert_taken(receiver)


def test_cp_that_keeps_the_times(receiver, sources, data_in) -> None:
    for source in sources:
        os.utime(source, (1_000_000_000, 1_000_000_000))
    bring(receiver, ("cp", "-p", *map(str, sources), str(data_in)))
    assert_taken(receiver)


def test_mv_within_a_file_system(receiver, sources, data_in) -> None:
    # One at a time: mv looks again at each but the last file that it renamed, and complains
    # where that one was taken already (it has come all the same).
    bring(receiver, *(("mv", str(source), str(data_in)) for source in sources))
    assert_taken(receiver)
    # A rename brings a file whole: there never is a part of it.
    assert not receiver.partial


def test_mv_from_another_file_system(receiver, data_in) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as far:
        assert os.stat(far).st_dev != data_in.stat().st_dev
        for name, content in PACKETS.items():
            (Path(far) / name).write_bytes(content)
        bring(receiver, ("mv", *(f"{far}/{name}" for name in PACKETS), str(data_in)))
        assert_taken(receiver)
        assert os.listdir(far) == []


def test_rsync(receiver, sources, ssh, data_in, gate) -> None:
    bring(
        receiver,
        rsync(ssh, gate, "-t", sources, data_in),
        half_way=lambda: (
            wait_until(lambda: list(data_in.glob(".large*")), "half a packet"),
            receiver.look(),
            gate.open(),
        ),
    )
    assert_taken(receiver)
    # It writes under a hidden name of its own and renames at the end.
    assert not receiver.partial


def test_rsync_that_writes_in_place(receiver, sources, ssh, data_in, gate) -> None:
    command = rsync(ssh, gate, "--inplace", sources, data_in)
    # 23: it looks at each file once more when it has written it, and may not find it any more.
    bring(receiver, command, status=(0, 23), half_way=see_half(receiver, gate))
    assert_taken(receiver)


def rsync(
    ssh: SshServer, gate: Gate, option: str, sources: Sequence[Path], data_in: Path
) -> tuple[str, ...]:
    through = " ".join([str(gate.program), *ssh.options, "-p", str(ssh.port)])
    target = f"{ssh.user}@127.0.0.1:{data_in}/"
    return ("rsync", option, "-e", through, *map(str, sources), target)


def test_hard_link(receiver, sources, data_in) -> None:
    bring(receiver, ("ln", *map(str, sources), str(data_in)))
    assert_taken(receiver)
    assert not receiver.partial
    assert [source.read_bytes() for source in sources] == [PACKETS[s.name] for s in sources]


def test_a_hard_link_whose_first_name_goes_away_while_it_is_taken(receiver, sources, data_in):
    for source in sources:
        os.link(source, data_in / source.name)
    readings = [receiver.spool.read(file) for file in receiver.spool.scan()]
    for source in sources:
        source.unlink()
    assert all(receiver.spool.done(reading.file) for reading in readings)
    assert os.listdir(data_in) == []


def test_a_writer_that_opens_the_final_name_at_once_and_writes_slowly(receiver, data_in) -> None:
    # As tentacle_server does: it holds the file open and writes each block as it comes.
    for name, content in PACKETS.items():
        with (data_in / name).open("wb", buffering=0) as file:
            receiver.look()
            for start in range(0, len(content), len(content) // 7):
                file.write(content[start : start + len(content) // 7])
                if file.tell() < len(content):
                    receiver.look()
                    assert name not in receiver.taken
        receiver.take(len(receiver.taken) + 1)
    assert_taken(receiver)
    assert all(receiver.partial[name] >= 7 for name in PACKETS)


def test_every_cut_of_a_packet_is_incomplete_until_its_last_byte(receiver, data_in) -> None:
    content = packet("cut", 0)
    path = data_in / "cut.1.data"
    with path.open("wb", buffering=0) as file:
        for byte in content[:-1]:
            file.write(bytes([byte]))
            receiver.look()
            assert not receiver.taken
        file.write(content[-1:])
    receiver.take(1)
    assert receiver.taken == {"cut.1.data": content}


def test_an_upload_that_was_cut_and_is_sent_again_is_taken_once(receiver, data_in) -> None:
    content = PACKETS["middle.host.1700000002.data"]
    path = data_in / "a.1.data"
    path.write_bytes(content[: len(content) // 2])
    receiver.look()
    path.write_bytes(content)
    receiver.take(1)
    assert receiver.taken == {"a.1.data": content}
    assert os.listdir(data_in) == []


def test_a_line_end_that_comes_after_the_packet_was_taken_is_no_second_packet(
    receiver, data_in
) -> None:
    path = data_in / "a.1.data"
    with path.open("wb", buffering=0) as file:
        file.write(PACKETS["small.1700000000.data"])
        (listed,) = receiver.spool.scan()
        reading = receiver.spool.read(listed)
        file.write(b"\n")
    assert receiver.spool.done(reading.file)
    assert os.listdir(data_in) == []


def test_a_packet_of_an_old_agent_comes_with_its_checksum_and_both_leave(
    tmp_path, receiver, data_in, ssh
) -> None:
    outgoing = tmp_path / "outgoing"
    outgoing.mkdir()
    content = PACKETS["middle.host.1700000002.data"]
    (outgoing / "old.7.data").write_bytes(content)
    (outgoing / "old.7.checksum").write_text(f"{hashlib.md5(content).hexdigest()}  old.7.data\n")
    rejected = Rejected(tmp_path / "var" / "rejected")
    options = (*ssh.options, "-O", "-P", str(ssh.port))
    files = (str(outgoing / "old.7.checksum"), str(outgoing / "old.7.data"))
    target = f"{ssh.user}@127.0.0.1:{data_in}/"
    with Spool(data_in, max_packet=1 << 20, checksum="verify", rejected=rejected) as spool:
        verifying = Receiver(spool, receiver.bell)
        with running(("scp", *options, *files, target)) as (upload,):
            verifying.take(1)
            assert upload.wait() == 0
        verifying.look()
    assert verifying.taken == {"old.7.data": content}
    assert os.listdir(data_in) == []


#: What a writer may do to a file after its last byte, by its descriptor.
TOUCHES = {
    # As scp does, whatever its protocol; the length is the same, the time a new one.
    "cut to its length": lambda fd: os.ftruncate(fd, os.fstat(fd).st_size),
    "given an old time": lambda fd: os.utime(fd, (1_000_000_000, 1_000_000_000)),
    "given a mode": lambda fd: os.fchmod(fd, 0o600),
    "a line end": lambda fd: os.pwrite(fd, b"\n", os.fstat(fd).st_size),
    "sent again, in place": lambda fd: os.pwrite(fd, os.pread(fd, 1 << 20, 0), 0),
}
#: When: a function of the server that is called between two of its looks at the file.
MOMENTS = {
    "while it is read": (directory, "read_whole", None),
    "after the commit": (directory, "reach", "before-unlink"),
    "on its way out": (remove, "reach", "inside-done"),
}


def test_a_packet_that_is_touched_after_its_last_byte_is_stored_once(
    dataserver: Run, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(sqlite_database.home, sqlite_database.url)
    cases = {f"{touch}, {moment}": (touch, moment) for touch in TOUCHES for moment in MOMENTS}
    untouched = []
    for agent, (touch, moment) in cases.items():
        content = packets.packet(agent, packets.module("load"), time=START)
        file = place.drop(f"{agent}.1.data", content)
        with file.open("r+b", buffering=0) as writer, monkeypatch.context() as patch:
            touched = touch_at(moment, partial(TOUCHES[touch], writer.fileno()), patch)
            dataserver("--home", place.home.root, "run", "--once")
        if not touched:
            untouched.append(agent)
    # Some could not be read, or not leave, while their writer was at it: they are still there.
    done = dataserver("--home", place.home.root, "run", "--once")
    assert (done.returncode, untouched) == (0, [])
    assert (place.packets_left(), place.rejected()) == ([], [])
    assert stored(sqlite_database) == dict.fromkeys(cases, (1, 1))


def touch_at(
    moment: str, touch: Callable[[], object], patch: pytest.MonkeyPatch
) -> Sequence[object]:
    """Call ``touch`` the first time that this moment comes; not empty once it was."""
    module, function, point = MOMENTS[moment]
    original = getattr(module, function)
    touched: list[object] = []

    def touching(*args: object) -> object:
        if not touched and point in (None, args[0]):
            touched.append(touch())
        return original(*args)

    patch.setattr(module, function, touching)
    return touched


def stored(database: Database) -> dict[str, tuple[int, int]]:
    """Of each agent: its packets in the ledger, and its values in the history."""
    a, m = schema.agent.c, schema.module.c
    ledger, history = schema.packet.c, schema.number_history.c
    packets = select(func.count()).where(ledger.agent_id == a.id).scalar_subquery()
    values = select(func.count()).where(history.module_id == m.id, m.agent_id == a.id)
    with database.engine().connect() as conn:
        rows = conn.execute(select(a.name, packets, values.scalar_subquery()))
        return {entities.decode(agent): tuple(counts) for agent, *counts in rows}
