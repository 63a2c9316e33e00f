"""The command line inside namespaces, without the second that each new Python takes.

:class:`Warm`  one process there that has loaded the program; it forks for each command
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from types import TracebackType

from tests.support.waiting import PATIENCE

#: Runs there: for each line of JSON one command, in a child of its own, as if newly started.
_SCRIPT = """
import json, os, sys, traceback
from dataserver.cli import main
import dataserver.settings, dataserver.store.opening, dataserver.store.probe, sqlalchemy
sys.argv[0] = "dataserver"
for line in iter(sys.stdin.readline, ""):
    asked = json.loads(line)
    streams = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    os.write(streams[0], asked["stdin"].encode())
    os.lseek(streams[0], 0, os.SEEK_SET)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            sys.stdin = open(0)
            sys.argv[1:] = asked["arguments"]
            main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    answer = {"code": code}
    for name, stream in zip(("stdin", "stdout", "stderr"), streams):
        os.lseek(stream, 0, os.SEEK_SET)
        with open(stream, "rb") as file:
            answer[name] = file.read().decode()
    print(json.dumps(answer), flush=True)
"""


class Warm:
    """Runs ``dataserver ARGUMENTS`` behind a command line that enters namespaces.

    It begins with the first command.
    """

    def __init__(
        self,
        entering: Sequence[str],
        python: Path = Path(sys.executable),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = [*entering, str(python), "-P", "-c", _SCRIPT]
        ours = {k: v for k, v in os.environ.items() if not k.startswith("DATASERVER_")}
        self._environment = ours if environment is None else dict(environment)
        self._process: subprocess.Popen[str] | None = None

    def run(self, *arguments: object, stdin: str = "") -> CompletedProcess[str]:
        """Run one command to its end, as :func:`subprocess.run` does."""
        process = self._process = self._process or self._begin()
        assert process.stdin is not None
        assert process.stdout is not None
        words = [str(each) for each in arguments]
        print(json.dumps({"arguments": words, "stdin": stdin}), file=process.stdin, flush=True)
        answered, _, _ = select.select([process.stdout], [], [], PATIENCE)
        assert answered, f"dataserver {' '.join(words)} did not end"
        answer = json.loads(process.stdout.readline())
        return CompletedProcess(words, answer["code"], answer["stdout"], answer["stderr"])

    def __enter__(self) -> Warm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def _begin(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
