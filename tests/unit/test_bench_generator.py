"""The benchmark's packets, and that its limit does the work it is said to do."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import generator, limit
from bench.workloads import CHANGED, INTERVAL, TEN, WORKLOADS, Kind, Workload, chosen

SMALL = Workload("small", "some agents", 40, TEN, 6)


def contents(workload: Workload, seed: int = generator.SEED) -> list[bytes]:
    return [file.content for file in generator.files(workload, seed)]


def modules(content: bytes) -> list[dict[str, str]]:
    root = ElementTree.fromstring(content)
    return [{tag.tag: tag.text or "" for tag in module} for module in root.iter("module")]


def readings(workload: Workload) -> dict[tuple[str, str, str], list[float | str]]:
    """What history should see of each module, round by round: rates for counters."""
    raw: dict[tuple[str, str, str], list[str]] = {}
    for content in contents(workload):
        agent = ElementTree.fromstring(content).get("agent_name") or ""
        for module in modules(content):
            key = (agent, module["name"], module["type"])
            raw.setdefault(key, []).append(module["data"])
    return {key: rates(texts) if key[2] == Kind.COUNTER else [*texts] for key, texts in raw.items()}


def rates(texts: list[str]) -> list[float | str]:
    numbers = [int(text) for text in texts]
    return [(b - a) / INTERVAL for a, b in pairwise(numbers)]


def changes(values: list[float | str]) -> int:
    return sum(a != b for a, b in pairwise(values))


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert contents(SMALL) == contents(SMALL)


def test_another_seed_gives_other_values() -> None:
    assert contents(SMALL) != contents(SMALL, seed=2)


def test_an_agent_does_not_depend_on_how_many_others_there_are() -> None:
    alone = list(generator.agent_files(SMALL, 0))
    assert list(generator.files(SMALL))[: SMALL.rounds] == alone


def test_a_file_is_named_as_unix_agents_name_theirs() -> None:
    file = next(generator.files(SMALL))
    root = ElementTree.fromstring(file.content)
    stem, number, suffix = file.name.split(".")
    agent = root.get("agent_name") or ""
    assert (stem, suffix) == (hashlib.md5(agent.encode()).hexdigest(), "data")
    assert generator.START <= int(number) < generator.START + INTERVAL


def test_the_packets_of_an_agent_are_one_interval_apart() -> None:
    numbers = [int(file.name.split(".")[1]) for file in generator.agent_files(SMALL, 3)]
    assert {b - a for a, b in pairwise(numbers)} == {INTERVAL}


def test_the_timestamp_is_the_number_of_the_file() -> None:
    file = list(generator.agent_files(SMALL, 3))[2]
    stamp = ElementTree.fromstring(file.content).get("timestamp") or ""
    at = limit.epoch(stamp)
    assert at == int(file.name.split(".")[1])


def test_ten_modules_weigh_as_much_as_real_ones() -> None:
    sizes = [len(content) for content in contents(SMALL)]
    assert 1_600 < sum(sizes) / len(sizes) < 1_900


def test_a_packet_has_the_modules_of_its_workload() -> None:
    found = modules(contents(SMALL)[0])
    assert Counter(module["type"] for module in found) == Counter(map(str, TEN))


def test_no_two_modules_of_an_agent_have_the_same_name() -> None:
    wide = Workload("long", "long packets", 1, TEN * 5, 1)
    names = [module["name"] for module in modules(contents(wide)[0])]
    assert len(set(names)) == len(names) == 50


def test_four_of_ten_values_differ_from_the_one_before() -> None:
    many = readings(Workload("many", "many rounds", 10, TEN, 200))
    shares = {}
    for kind in Kind:
        of_kind = [values for key, values in many.items() if key[2] == kind]
        shares[kind] = sum(map(changes, of_kind)) / sum(len(values) - 1 for values in of_kind)
    assert shares == pytest.approx(dict.fromkeys(Kind, CHANGED), abs=0.03)


def test_the_count_for_history_is_the_first_value_and_every_change() -> None:
    expected = sum(1 + changes(values) for values in readings(SMALL).values())
    assert sum(file.stored for file in generator.files(SMALL)) == expected


def test_a_corpus_has_one_folder_a_round_and_tells_what_each_adds(tmp_path: Path) -> None:
    stored = generator.write(SMALL, tmp_path)
    rounds = sorted(tmp_path.iterdir())
    assert [len(list(folder.iterdir())) for folder in rounds] == [40] * 6
    assert stored == [
        sum(file.stored for file in generator.files(SMALL) if file.round == turn)
        for turn in range(6)
    ]


def test_the_limit_takes_in_all_that_the_packets_hold(tmp_path: Path) -> None:
    stored = generator.write(SMALL, tmp_path / "corpus")
    paths = list((tmp_path / "corpus").rglob("*.data"))
    done = limit.measure(f"sqlite:///{tmp_path}/limit.db", [], paths)
    assert (done.packets, done.samples, done.stored) == (240, 2_400, sum(stored))


def test_the_limit_of_a_later_round_knows_the_values_before(tmp_path: Path) -> None:
    stored = generator.write(SMALL, tmp_path / "corpus")
    paths = sorted((tmp_path / "corpus").rglob("*.data"))
    done = limit.measure(f"sqlite:///{tmp_path}/limit.db", paths[:200], paths[200:])
    assert (done.packets, done.stored) == (40, stored[5])


def test_a_group_holds_whole_agents() -> None:
    paths = [Path(f"{agent}.{number}.data") for number in (1, 2, 3) for agent in "abcde"]
    found = [[path.name[0] for path in group] for group in limit.groups(paths, size=4)]
    assert found == [list("aaabbb"), list("cccddd"), list("eee")]


def test_the_workloads_are_as_large_as_they_are_said_to_be() -> None:
    sizes = {name: (w.packets, w.values) for name, w in WORKLOADS.items()}
    assert sizes["W1"] == (10_000, 100_000)
    assert sizes["W2"] == (2_000, 100_000)
    assert sizes["W3"] == (60_000, 180_000)
    assert sizes["wide"] == (10_000, 100_000)


def test_a_part_of_a_name_chooses_all_that_begin_with_it() -> None:
    assert [w.agents for w in chosen("sweep")] == [1_000, 5_000, 20_000]


def test_an_unknown_workload_is_refused_by_its_name() -> None:
    with pytest.raises(KeyError, match="W9"):
        chosen("W1,W9")
