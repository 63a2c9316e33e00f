"""The command line inside namespaces, without the second that each new Python takes.

:class:`Warm`   a process that has loaded the program and forks for each command
:func:`shared`  the one of this test process, whose commands enter the namespaces they are told
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess

from tests.support.waiting import PATIENCE

#: For each line of JSON one command, in a child of its own, as if newly started.
_SCRIPT = """
import ctypes, json, os, sys, traceback
from dataserver.cli import main
import dataserver.config.settings, dataserver.store.opening, dataserver.store.probe, sqlalchemy

def enter(namespaces):
    libc = ctypes.CDLL(None, use_errno=True)
    for fd in [os.open(each, os.O_RDONLY | os.O_CLOEXEC) for each in namespaces]:
        if libc.setns(fd, 0) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    # Its children are in another process namespace, it is not.
    if child := os.fork():
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

def run(asked, streams):
    code = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        sys.stdin = open(0)
        if asked["namespaces"]:
            enter(asked["namespaces"])
        os.environ.update(asked["environment"])
        sys.argv = ["dataserver", *asked["arguments"]]
        main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

for line in iter(sys.stdin.readline, ""):
    asked = json.loads(line)
    streams = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    os.write(streams[0], asked["stdin"].encode())
    os.lseek(streams[0], 0, os.SEEK_SET)
    child = os.fork()
    if child == 0:
        run(asked, streams)
    answer = {"code": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}
    for name, stream in zip(("stdin", "stdout", "stderr"), streams):
        os.lseek(stream, 0, os.SEEK_SET)
        with open(stream, "rb") as file:
            answer[name] = file.read().decode()
    print(json.dumps(answer), flush=True)
"""


class Warm:
    """Runs ``dataserver ARGUMENTS`` as often as it is asked to; it begins with the first one.

    ``entering`` is a command line put before it, such as nsenter's.
    """

    def __init__(
        self,
        entering: Sequence[str] = (),
        python: Path = Path(sys.executable),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        ours = {k: v for k, v in os.environ.items() if not k.startswith("DATASERVER_")}
        self._environment = ours if environment is None else dict(environment)
        self._command = [*entering, str(python), "-P", "-c", _SCRIPT]
        self._process: subprocess.Popen[str] | None = None

    def run(
        self,
        *arguments: object,
        stdin: str = "",
        namespaces: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> CompletedProcess[str]:
        """Run one command to its end, as :func:`subprocess.run` does.

        ``namespaces`` are files to enter (``/proc/PID/ns/mnt``); ``environment`` is added.
        """
        process = self._process = self._process or self._begin()
        assert process.stdin is not None
        assert process.stdout is not None
        asked = {
            "arguments": [str(each) for each in arguments],
            "stdin": stdin,
            "namespaces": list(namespaces),
            "environment": dict(environment or {}),
        }
        print(json.dumps(asked), file=process.stdin, flush=True)
        answered, _, _ = select.select([process.stdout], [], [], PATIENCE)
        assert answered, f"it did not end: dataserver {asked['arguments']}"
        answer = json.loads(process.stdout.readline())
        return CompletedProcess(
            asked["arguments"], answer["code"], answer["stdout"], answer["stderr"]
        )

    def close(self) -> None:
        """The end of it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _begin(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
        )


@cache
def shared() -> Warm:
    """The one of this process, for all namespaces in which our interpreter is where it is here."""
    made = Warm()
    atexit.register(made.close)
    return made
