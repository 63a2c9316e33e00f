"""Fail points kill where they are told to, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PASS = """
from dataserver.failpoints import reach
for name in ("a", "b", "a", "b", "a"):
    print(name, flush=True)
    reach(name)
"""


def run(setting: str | None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "DATASERVER_FAILPOINT"}
    if setting is not None:
        environment["DATASERVER_FAILPOINT"] = setting
    command = [sys.executable, "-c", PASS]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("setting", "reached"), [("a", "a"), ("b", "ab"), ("a:3", "ababa"), ("b:2", "abab")]
)
def test_the_named_place_kills_at_the_time_that_was_asked_for(setting, reached) -> None:
    result = run(setting)
    assert result.returncode == -9
    assert result.stdout.split() == list(reached)


@pytest.mark.parametrize("setting", [None, "", "c", "a:4"])
def test_every_other_place_does_nothing(setting) -> None:
    result = run(setting)
    assert result.returncode == 0
    assert result.stdout.split() == list("ababa")


@pytest.mark.parametrize("setting", ["a:0", "a:x", "a:-1"])
def test_a_setting_that_means_nothing_is_an_error(setting) -> None:
    assert run(setting).returncode == 1
