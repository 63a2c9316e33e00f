"""The command line: inside the test's process, or as the program that was installed.

Nearly everything about a command is the same in this process, and takes milliseconds instead of
the second in which a new Python imports the database's library.  What only a process has (its
streams, its signals, its locale, its start and end) is tested with the installed program.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from click.testing import CliRunner

from dataserver import failpoints, logs
from dataserver.cli import main
from tests.support.waiting import PATIENCE

#: The command as it was installed, beside the interpreter that runs the tests.
COMMAND = Path(sys.executable).with_name("dataserver")

#: What the fixtures ``dataserver`` and ``installed`` are.
Run = Callable[..., "CompletedProcess[Any]"]


def call(
    *args: object,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    input: str | bytes | None = None,
    text: bool = True,
) -> CompletedProcess[Any]:
    """Run ``dataserver ARGS`` in this process, as if it were one of its own.

    ``env`` is its whole environment; ``text`` False: streams as bytes.
    """
    words = [str(word) for word in args]
    with _as_before(), contextlib.chdir(cwd):
        if env is not None:
            # Read once, when a process begins.
            assert failpoints.VARIABLE not in env, "a failpoint needs a process of its own"
            _become(env)
        done = CliRunner().invoke(main, words, input=input, prog_name="dataserver")
    streams = done.stdout_bytes, done.stderr_bytes
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        # `main` turns every error into an exit code: this one is the test's.
        raise done.exception
    if text:
        return CompletedProcess(words, done.exit_code, *(each.decode() for each in streams))
    return CompletedProcess(words, done.exit_code, *streams)


def run(*args: object, cwd: Path, **options: Any) -> CompletedProcess[Any]:
    """Run the installed program; ``options`` as for :func:`subprocess.run`."""
    command = [str(COMMAND), *map(str, args)]
    settings = {"timeout": PATIENCE, "text": True, "capture_output": True, **options}
    if {"stdout", "stderr"} & options.keys():
        del settings["capture_output"]
    return subprocess.run(command, check=False, cwd=cwd, **settings)


class Terminal:
    """A terminal; ``device`` is what a program gets for its standard streams."""

    def __enter__(self) -> Terminal:
        self._keyboard, self.device = pty.openpty()
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self._keyboard, self.device):
            if end >= 0:
                os.close(end)

    def type(self, text: str) -> None:
        os.write(self._keyboard, text.encode())

    def shown(self) -> str:
        """All that was written to it, once nobody writes to it any more; it is gone then."""
        os.close(self.device)
        self.device = -1
        found = b""
        # What was written comes in pieces, and later than its writer ended.
        with contextlib.suppress(OSError):
            while piece := os.read(self._keyboard, 65_536):
                found += piece
        return found.decode()


@contextlib.contextmanager
def _as_before() -> Iterator[None]:
    """What a process takes along when it ends: its log, handlers of signals, environment."""
    loggers = [logging.getLogger(name) for name in (None, logs.NAME, "matplotlib")]
    logged = [(each.handlers[:], each.level, each.propagate) for each in loggers]
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    handlers = [signal.getsignal(number) for number in numbers]
    environment = dict(os.environ)
    thresholds = gc.get_threshold()
    umask = os.umask(0o022)
    os.umask(umask)
    try:
        yield
    finally:
        for logger, (of_it, level, propagate) in zip(loggers, logged, strict=True):
            logger.handlers[:], logger.propagate = of_it, propagate
            logger.setLevel(level)
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
        _become(environment)
        # A server looks for cycles seldom, and never among what it began with.
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        os.umask(umask)


def _become(environment: Mapping[str, str]) -> None:
    """Make this the environment; nothing is done where it is already."""
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    time.tzset()
