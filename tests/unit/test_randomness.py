"""Random tests are the same each time, or new, and say how to repeat what failed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import providers

from tests.support import randomness
from tests.support.randomness import VARIABLE, examples, seeded
from tests.support.waiting import PATIENCE

ROOT = Path(__file__).parents[2]

CONFTEST = """
from tests.support import randomness

def pytest_configure(config):
    randomness.choose(True)
"""
FAILING = """
from hypothesis import given, strategies
from tests.support.randomness import seeded

def test_drawn():
    assert seeded("this").random() > 1

@given(strategies.integers())
def test_given(number):
    assert number < 1000
"""


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the run decided is in force again afterwards."""
    before = settings.get_current_profile_name()
    chosen = settings.get_profile(before)
    for of, name in (
        (randomness, "_seed"),
        (randomness, "_new"),
        (providers, "_get_local_constants"),
    ):
        monkeypatch.setattr(of, name, getattr(of, name))
    monkeypatch.delenv(VARIABLE, raising=False)
    yield
    os.environ.pop(VARIABLE, None)
    settings.register_profile(before, chosen)
    settings.load_profile(before)


def test_numbers_are_the_same_each_time_and_others_for_another_test() -> None:
    randomness.choose(False)
    first = seeded("one").random()
    randomness.choose(False)
    assert seeded("one").random() == first
    assert seeded("other").random() != first
    assert examples(3, 1000) == 3


def test_new_numbers_are_repeated_with_the_seed_that_was_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    randomness.choose(True)
    first = seeded("one").random()
    printed = re.fullmatch(rf"to repeat: {VARIABLE}=(\d+)\n", capsys.readouterr().out)
    assert printed is not None
    assert os.environ.pop(VARIABLE) == printed[1], "a worker process has the same"
    randomness.choose(True)
    assert seeded("one").random() != first
    assert examples(3, 1000) == 1000
    for new in (True, False):
        monkeypatch.setenv(VARIABLE, printed[1])
        randomness.choose(new)
        assert seeded("one").random() == first


def test_examples_do_not_depend_on_the_modules_that_are_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    randomness.choose(False)
    played: list[list[object]] = []

    def play() -> None:
        found: list[object] = []

        @given(st.lists(st.integers(), min_size=20))
        def test(values: list[int]) -> None:
            found.append(values)

        test()
        played.append(found)

    play()
    (tmp_path / "more.py").write_text("\n".join(f"a{n} = {n * 7919}" for n in range(900)))
    monkeypatch.syspath_prepend(tmp_path)
    __import__("more")
    play()
    assert played[0] == played[1]
    assert len(played[0]) == 50


@pytest.mark.parametrize("workers", ["-n0", pytest.param("-n1", marks=pytest.mark.long)])
def test_what_fails_says_how_to_repeat_it(tmp_path: Path, workers: str) -> None:
    (tmp_path / "test_failing.py").write_text(FAILING)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    command = [sys.executable, "-m", "pytest", workers, "-pno:cacheprovider", str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert "2 failed" in done.stdout, done.stdout + done.stderr
    assert re.search(rf"to repeat: {VARIABLE}=\d+\n", done.stdout)
    assert re.search(r"@reproduce_failure\('[\d.]+', b'.*'\)", done.stdout)
