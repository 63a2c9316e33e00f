"""The home: how it is found, what an instance may be called, where its files are."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataserver.config.paths import SYSTEM_HOME, Home, find
from dataserver.errors import UsageError
from tests.support.failures import failures


def test_the_option_wins_over_everything(tmp_path: Path) -> None:
    (tmp_path / "dataserver.toml").touch()
    found = find(Path("/option"), {"DATASERVER_HOME": "/variable"}, tmp_path)
    assert found.root == Path("/option")


def test_the_variable_wins_over_the_current_directory(tmp_path: Path) -> None:
    (tmp_path / "dataserver.toml").touch()
    assert find(None, {"DATASERVER_HOME": "/variable"}, tmp_path).root == Path("/variable")


def test_the_current_directory_is_a_home_if_it_holds_the_settings(tmp_path: Path) -> None:
    (tmp_path / "dataserver.toml").touch()
    assert find(None, {}, tmp_path).root == tmp_path


def test_else_it_is_the_systems(tmp_path: Path) -> None:
    assert find(None, {"DATASERVER_HOME": ""}, tmp_path).root == SYSTEM_HOME


def test_a_relative_home_starts_at_the_current_directory(tmp_path: Path) -> None:
    assert find(Path("mine"), {}, tmp_path).root == tmp_path / "mine"


def test_good_names_are_taken() -> None:
    for name in ("main", "a", "site-2", "0", "a_b", "x" * 64):
        assert Home(Path("/h")).instance(name).folder == Path("/h/instances") / name


def test_names_that_are_no_good_are_refused() -> None:
    def check(name: str) -> None:
        with pytest.raises(UsageError):
            Home(Path("/h")).instance(name)

    names = ["", "..", ".", "a/b", "a b", "A", "ä", "-x", "_x", "x" * 65, "units", "a\n", "a@b"]
    assert failures(check, names) == {}


def test_instances_are_the_folders_with_a_configuration(home: Home) -> None:
    for name in ("beta", "units", "Bad Name", "empty"):
        (home.instances / name).mkdir()
    (home.instances / "beta/instance.toml").touch()
    (home.instances / "units/instance.toml").touch()
    (home.instances / "Bad Name/instance.toml").touch()
    assert home.instance_names() == ["beta", "main"]


def test_what_running_leaves_behind_is_under_var() -> None:
    paths = Home(Path("/h")).instance("beta")
    left = [paths.heartbeat, paths.status, paths.metrics, paths.rejected, paths.lock]
    assert {path.parent for path in left} == {Path("/h/var/beta")}
