"""Running rule-based state machines: a few histories, many, or for as long as is asked for.

``RANDOM_MINUTES=60 make test-all ARGS="-k any_history"`` plays new histories for an hour in each
test that matches.
"""

from __future__ import annotations

import os
import time

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.support.randomness import examples


def play(machine: type[RuleBasedStateMachine], *, few: int, many: int, steps: int) -> None:
    """Play histories of ``steps`` steps; what fails is shown as found: shrinking takes minutes."""
    count = examples(few, many)
    chosen = settings(
        max_examples=count,
        stateful_step_count=steps,
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    until = time.monotonic() + 60 * float(os.environ.get("RANDOM_MINUTES", "0"))
    played = 0
    while not played or time.monotonic() < until:
        run_state_machine_as_test(machine, settings=chosen)
        played += count
    print(f"{played} histories of {machine.__name__}")
