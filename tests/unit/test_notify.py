"""Messages to whoever started the process: sent to the right place, never in the way."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

import pytest

from dataserver import sd_notify
from tests.support.waiting import PATIENCE


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path):
    abstract = f"test-{uuid.uuid4().hex}"
    name = str(tmp_path / "socket") if request.param == "path" else f"@{abstract}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0", 1))
        sock.settimeout(PATIENCE)
        yield name, sock


def test_a_message_arrives(listener) -> None:
    name, sock = listener
    sd_notify.notifier({"NOTIFY_SOCKET": name})("READY=1\nSTATUS=idle")
    assert sock.recv(1000) == b"READY=1\nSTATUS=idle"


def test_where_nobody_listens_nothing_happens() -> None:
    sd_notify.notifier({})("READY=1")
    for where in ("nonsense", "/nowhere/at/all", "@nobody-listens-here"):
        sd_notify.notifier({"NOTIFY_SOCKET": where})("READY=1")


def test_a_listener_that_does_not_listen_makes_nobody_wait(listener) -> None:
    name, _ = listener
    tell = sd_notify.notifier({"NOTIFY_SOCKET": name})
    for _ in range(2000):  # far more than a socket's queue holds
        tell("WATCHDOG=1" * 100)


def test_it_is_kept_from_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/somewhere")
    sd_notify.forget()
    sd_notify.forget()
    assert "NOTIFY_SOCKET" not in os.environ
