"""Random tests: the same ones each time, or new ones that can be repeated.

A submission must not fail by luck, so `make test` plays the same few random examples on every
machine.  `make test-all` plays many new ones; what fails prints how to repeat it:
``RANDOM_SEED=NUMBER`` for tests that draw from :func:`seeded`, a decorator for Hypothesis.
"""

from __future__ import annotations

import os
import random

from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

VARIABLE = "RANDOM_SEED"
#: Of tests that draw from :mod:`random`.
_FIXED_SEED = 20_260_101

_seed = _FIXED_SEED
_new = False


def choose(new: bool) -> None:
    """Decide for this process: the same few examples (``new`` False), or many others each time."""
    global _new, _seed  # noqa: PLW0603 - one decision per process
    _new = new
    given = os.environ.get(VARIABLE)
    _seed = int(given) if given else _FIXED_SEED
    if new and not given:
        _seed = random.SystemRandom().randrange(2**32)
        # pytest-xdist's workers inherit it: a run has one seed.
        os.environ[VARIABLE] = str(_seed)
    # A slow machine is no reason to fail.
    slow = [HealthCheck.too_slow]
    settings.register_profile(
        "chosen",
        max_examples=examples(100, 1000),
        derandomize=not new,
        database=settings.get_profile("default").database if new else None,
        deadline=None,
        print_blob=True,
        suppress_health_check=slow,
    )
    settings.load_profile("chosen")
    if not new:
        _forget_what_is_loaded()


def examples(few: int, many: int) -> int:
    """How many examples a test plays: ``few`` in `make test`, ``many`` in `make test-all`.

    For ``max_examples`` of a test whose examples take longer, or are rarer, than usual.
    """
    return many if _new else few


def header() -> str:
    """What a run says of its random numbers."""
    return f"to repeat tests that draw random numbers: {VARIABLE}={_seed}"


def seeded(name: str) -> random.Random:
    """Random numbers for the test ``name``, which a failure shows how to repeat."""
    print(f"to repeat: {VARIABLE}={_seed}")
    return random.Random(f"{name}:{_seed}")


def _forget_what_is_loaded() -> None:
    """Have Hypothesis not try constants of modules that are loaded.

    Which they are depends on the tests that the same process ran before.
    """
    providers._get_local_constants = lambda: providers._local_constants
