"""Prometheus texts of several instances put together; a small parser reads what comes out."""

from __future__ import annotations

import re

import pytest

from dataserver.console.counting import Requests
from dataserver.console.pages.machine import merged
from dataserver.runtime.metrics import Counters, Gauges, prometheus

_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\n"])*"'
_SAMPLE = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? (\S+)")


def parsed(text: str) -> dict[str, float]:
    """Series by what they are called; fails where the text is not what Prometheus reads."""
    assert text.endswith("\n")
    described: dict[tuple[str, str], bool] = {}
    family, done, found = "", set(), {}
    for line in text[:-1].split("\n"):
        if line.startswith("# "):
            _, kind, name, _words = line.split(" ", 3)
            assert kind in {"HELP", "TYPE"}
            assert (kind, name) not in described, f"described twice: {line}"
            described[kind, name] = True
            if name != family:
                assert name not in done, f"not together: {line}"
                done.add(family)
                family = name
            continue
        match = _SAMPLE.fullmatch(line)
        assert match, f"no sample: {line!r}"
        name = re.sub(r"_(bucket|sum|count)$", "", match[1])
        if not {name, match[1]} & {each for _, each in described}:
            family = match[1]  # described nowhere
        assert family in {name, match[1]}, f"{line!r} stands below {family}"
        series = f"{match[1]}{{{match[2] or ''}}}"
        assert series not in found, f"twice: {line}"
        found[series] = float(match[3])
    return found


def put_together(*texts: tuple[str, str]) -> dict[str, float]:
    return parsed("\n".join(merged(texts)) + "\n")


def of(instance: str, **labels: str) -> tuple[str, str]:
    counters = Counters(packets=len(instance))
    counters.rejected["clock"] += 1
    counters.commit_seconds.observe(0.3)
    return instance, prometheus(counters, Gauges(queue=7), {**labels, "instance": instance})


def test_of_two_instances_each_name_is_described_once_and_its_samples_stand_together() -> None:
    found = put_together(of("main"), of("other"))
    assert found['dataserver_packets_total{instance="main"}'] == 4
    assert found['dataserver_packets_total{instance="other"}'] == 5
    assert found['dataserver_commit_seconds_count{instance="other"}'] == 1
    assert len([name for name in found if name.startswith("dataserver_commit_seconds_")]) > 20


def test_a_sample_without_an_instance_gets_it() -> None:
    assert put_together(("a", "x 1\n"), ("b", 'x{k="v"} 2\n')) == {
        'x{instance="a"}': 1,
        'x{instance="b",k="v"}': 2,
    }


def test_a_label_whose_text_looks_like_an_instance_is_none() -> None:
    text = 'x{server="a,instance="} 1\n'
    assert put_together(("main", text)) == {'x{instance="main",server="a,instance="}': 1}


@pytest.mark.parametrize("odd", ["\u2028", "\x85", "\x0b", "\x0c", "\x1c", "ä"])
def test_a_label_may_hold_what_python_takes_for_an_end_of_line(odd: str) -> None:
    text = f'x{{server="a{odd}b"}} 1\n'
    assert put_together(("main", text)) == {f'x{{instance="main",server="a{odd}b"}}': 1}


@pytest.mark.parametrize(
    "line",
    [
        "x{",
        'x{a="b} 1',
        'x{a="b"} one',
        'x{a="b"}',
        "x 1_000",
        "x ١",
        "x{a=b} 1",
        "<script> 1",
        "# EOF",
        "dataserver_pack",
    ],
)
def test_what_is_no_sample_is_left_out(line: str) -> None:
    assert put_together(("main", f"{line}\ny 2\n")) == {'y{instance="main"}': 2}


def test_a_series_that_two_instances_claim_is_there_once() -> None:
    text = 'x{instance="main"} 1\n'
    assert put_together(("main", text), ("copy", text)) == {'x{instance="main"}': 1}


def test_special_numbers_are_kept() -> None:
    found = put_together(("main", "x +Inf\ny NaN\nz 1e-07\n"))
    assert found['x{instance="main"}'] == float("inf")
    assert found['z{instance="main"}'] == 1e-7


def test_a_name_that_ends_like_a_histograms_but_is_none_keeps_its_own_samples() -> None:
    texts = ("# TYPE x counter\nx 1\n# TYPE x_count gauge\nx_count 2\n", "x 3\nx_count 4\n")
    lines = list(merged([("a", texts[0]), ("b", texts[1])]))
    assert lines.index('x{instance="b"} 3') < lines.index("# TYPE x_count gauge")


def test_nothing_becomes_nothing() -> None:
    assert list(merged([])) == []
    assert list(merged([("main", "")])) == []


def test_the_consoles_own_figures_are_of_the_format_and_agree() -> None:
    requests = Requests()
    for code in (200, 200, 404):
        requests.add("/agents/{id:int}", code)
    for seconds in (0.001, 0.2, 99.0):
        requests.seconds.observe(seconds)
    found = parsed("\n".join(requests.lines()) + "\n")
    assert found['dataserver_console_requests_total{route="/agents/{id:int}",code="200"}'] == 2
    assert found['dataserver_console_request_seconds_bucket{le="+Inf"}'] == 3
    assert found["dataserver_console_request_seconds_count{}"] == 3
