"""Fail points kill where they are told to, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys

#: Passes five places in a process for each setting ("-": none), and tells how it ended.
PASS = """
import os, sys
for setting in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        if setting != "-":
            os.environ["DATASERVER_FAILPOINT"] = setting
        from dataserver.failpoints import reach
        for name in "ababa":
            print(name, end="", flush=True)
            reach(name)
        sys.exit()
    print("", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def passed(*settings: str) -> dict[str, str]:
    """The places that were reached with each setting, and the process's exit code."""
    environment = {k: v for k, v in os.environ.items() if k != "DATASERVER_FAILPOINT"}
    done = subprocess.run(
        [sys.executable, "-c", PASS, *settings],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(settings, done.stdout.splitlines(), strict=True))


def test_the_named_place_kills_at_the_time_that_was_asked_for() -> None:
    kills = {"a": "a -9", "b": "ab -9", "a:3": "ababa -9", "b:2": "abab -9"}
    assert passed(*kills) == kills


def test_every_other_place_does_nothing() -> None:
    settings = ("-", "", "c", "a:4")
    assert passed(*settings) == dict.fromkeys(settings, "ababa 0")


def test_a_setting_that_means_nothing_is_an_error() -> None:
    settings = ("a:0", "a:x", "a:-1")
    assert passed(*settings) == dict.fromkeys(settings, " 1")
