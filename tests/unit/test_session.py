"""What an uploader may make the worker's figures grow by."""

from __future__ import annotations

from collections import Counter

from dataserver.worker.session import count_bounded


def test_sections_are_counted_by_name() -> None:
    counts = Counter(log_module=1)
    count_bounded(counts, {"log_module": 2, "traps": 3})
    assert counts == {"log_module": 3, "traps": 3}


def test_any_number_of_names_makes_only_a_few_figures() -> None:
    counts: Counter[str] = Counter()
    for number in range(1_000):
        count_bounded(counts, {f"section{number}": 1, "x" * 100_000: 1})
    assert len(counts) < 100
    assert max(map(len, counts)) < 100
    assert counts.total() == 2_000
