"""Counters, rates, and the Prometheus text."""

from __future__ import annotations

import re

import pytest

from dataserver.runtime.metrics import Counters, Gauges, Histogram, Rates, as_dict, prometheus

#: One sample of the exposition format: name, labels, value.
SAMPLE = re.compile(r'[a-z_:]+(\{[a-z_]+="([^"\\\n]|\\.)*"(,[a-z_]+="([^"\\\n]|\\.)*")*\})? \S+')


def text(counters: Counters, **labels: str) -> str:
    return prometheus(counters, Gauges(), labels)


def test_every_line_is_of_the_exposition_format() -> None:
    counters = Counters()
    counters.rejected['od"d\\\n'] += 1
    counters.commit_seconds.observe(0.3)
    for line in text(counters, instance="main").splitlines():
        assert line.startswith(("# HELP dataserver_", "# TYPE dataserver_")) or SAMPLE.fullmatch(
            line
        )


def test_a_counter_is_a_total_with_the_instances_label() -> None:
    counters = Counters()
    counters.packets += 3
    assert 'dataserver_packets_total{instance="main"} 3\n' in text(counters, instance="main")


def test_what_is_counted_by_reason_has_one_series_each() -> None:
    counters = Counters()
    counters.rejected["clock"] += 2
    counters.rejected["malformed"] += 1
    assert 'dataserver_rejected_total{reason="clock"} 2\n' in text(counters)
    assert 'dataserver_rejected_total{reason="malformed"} 1\n' in text(counters)


def test_labels_are_escaped() -> None:
    assert r'instance="a\"b\\c\nd"' in text(Counters(), instance='a"b\\c\nd')


def test_a_histograms_buckets_are_cumulative_and_end_at_infinity() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(seconds)
    assert list(histogram.cumulative()) == [(0.1, 2), (1.0, 3), (float("inf"), 4)]
    assert histogram.count == 4
    assert histogram.total == pytest.approx(7.65)


def test_a_histogram_is_written_with_sum_and_count() -> None:
    counters = Counters()
    counters.commit_seconds.observe(0.2)
    lines = text(counters)
    assert 'dataserver_commit_seconds_bucket{le="0.25"} 1\n' in lines
    assert 'dataserver_commit_seconds_bucket{le="+Inf"} 1\n' in lines
    assert "dataserver_commit_seconds_sum 0.200000\n" in lines
    assert "dataserver_commit_seconds_count 1\n" in lines


def test_counters_of_two_processes_share_nothing() -> None:
    first, second = Counters(), Counters()
    first.rejected["clock"] += 1
    first.commit_seconds.observe(1.0)
    assert not second.rejected
    assert second.commit_seconds.count == 0


def test_as_dict_is_plain_json() -> None:
    counters = Counters()
    counters.rejected["clock"] += 1
    counters.commit_seconds.observe(0.5)
    plain = as_dict(counters)
    assert plain["rejected"] == {"clock": 1}
    assert plain["commit_seconds"] == {"count": 1, "sum": 0.5}
    assert as_dict(Gauges())["queue"] == 0


def test_rates_are_those_of_the_last_minute() -> None:
    rates, counters = Rates(window=60.0), Counters()
    for second in range(0, 200, 10):
        # Ten packets with a hundred values a second, twice that in the last minute.
        counters.packets += 100 if second <= 130 else 200
        counters.samples += 1000 if second <= 130 else 2000
        rates.update(float(second), counters)
    assert rates.per_second() == (20.0, 200.0)


def test_rates_are_zero_before_there_are_two_readings() -> None:
    rates = Rates()
    assert rates.per_second() == (0.0, 0.0)
    rates.update(1.0, Counters())
    assert rates.per_second() == (0.0, 0.0)
