"""Consoles for tests: in this process with a clock of the test's own, or the command itself."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn

from dataserver.console.app import create_app
from dataserver.console.source import Source
from tests.conftest import COMMAND
from tests.support.server import PATIENCE


@contextmanager
def serving(source: Source) -> Iterator[httpx.Client]:
    """A console in a thread of this process, and a client of it."""
    config = uvicorn.Config(create_app(source), log_config=None, ws="none", lifespan="on")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            # Connections are taken from the start; they are answered when it is ready.
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
                yield client
        finally:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


@contextmanager
def running_console(home: Path, *options: str) -> Iterator[str]:
    """`dataserver console` on a free port; where it answers.  It dies with the test."""
    command = [str(COMMAND), "--home", str(home), "console", "--listen", "127.0.0.1:0", *options]
    log = home / "console.log"
    with (
        log.open("ab") as errors,
        subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            yield _address(process, log)
            process.terminate()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


def _address(process: subprocess.Popen[str], log: Path) -> str:
    """Where it says that it answers."""
    assert process.stdout is not None
    told: Sequence[str] = process.stdout.readline().split()
    assert told, f"it says nothing:\n{log.read_text()[-2000:]}"
    return told[-1]
