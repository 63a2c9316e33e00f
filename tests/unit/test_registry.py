"""The folders of instances: which there are, which are meant to run, which changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dataserver.config.paths import Home
from dataserver.errors import UsageError
from dataserver.fleet.registry import Registry, disable, enable


@pytest.fixture
def registry(home: Home) -> Registry:
    return Registry(home)


def add(home: Home, name: str, text: str = "") -> Path:
    folder = home.instances / name
    folder.mkdir()
    (folder / "instance.toml").write_text(text)
    return folder


def names(registry: Registry) -> list[str]:
    return [instance.name for instance in registry.instances()]


def fingerprint(registry: Registry, name: str = "main") -> str:
    return registry.get(name).fingerprint


class TestListing:
    def test_instances_are_the_folders_with_a_configuration_in_order_of_name(
        self, home: Home, registry: Registry
    ) -> None:
        add(home, "zeta")
        add(home, "beta")
        add(home, "units")
        add(home, ".new-gamma")
        add(home, "Bad Name")
        (home.instances / "empty").mkdir()
        (home.instances / "README.md").touch()
        assert names(registry) == ["beta", "main", "zeta"]

    def test_a_home_without_instances_is_an_error_not_an_empty_list(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            Registry(Home(tmp_path)).instances()

    @pytest.mark.parametrize("kind", ["directory", "loop", "dangling"])
    def test_a_configuration_that_is_no_file_keeps_its_instance_in_the_list(
        self, home: Home, registry: Registry, kind: str
    ) -> None:
        folder = home.instances / "odd"
        folder.mkdir()
        if kind == "directory":
            (folder / "instance.toml").mkdir()
        else:
            target = "instance.toml" if kind == "loop" else "nowhere"
            (folder / "instance.toml").symlink_to(target)
        assert names(registry) == ["main", "odd"]

    def test_one_that_is_not_there_is_named_with_those_that_are(self, registry: Registry) -> None:
        with pytest.raises(UsageError, match=r"no instance 'beta'.*existing instances: main"):
            registry.get("beta")

    def test_hundreds_take_a_few_calls_each(
        self, home: Home, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(100):
            add(home, f"i{number}")
        calls = 0
        real = os.stat

        def counting(*args: object, **options: object) -> os.stat_result:
            nonlocal calls
            calls += 1
            return real(*args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "stat", counting)
        assert len(registry.instances()) == 101
        assert calls <= 300


class TestEnabled:
    def test_an_instance_is_meant_to_run_unless_the_marker_is_there(
        self, registry: Registry
    ) -> None:
        assert registry.get("main").enabled
        disable(registry.get("main").paths)
        assert not registry.get("main").enabled
        assert [instance.enabled for instance in registry.instances()] == [False]

    def test_disabling_and_enabling_twice_does_no_harm(self, registry: Registry) -> None:
        paths = registry.get("main").paths
        disable(paths)
        disable(paths)
        enable(paths)
        enable(paths)
        assert registry.get("main").enabled


class TestFingerprint:
    def test_it_stays_while_nothing_changes(self, registry: Registry) -> None:
        assert fingerprint(registry) == fingerprint(registry)

    def test_changed_settings_change_it(self, home: Home, registry: Registry) -> None:
        before = fingerprint(registry)
        home.instance().config.write_text("settle = 1\n")
        assert fingerprint(registry) != before

    def test_a_file_put_in_its_place_changes_it(self, home: Home, registry: Registry) -> None:
        config = home.instance().config
        info = config.stat()
        before = fingerprint(registry)
        other = config.with_name("other")
        other.write_bytes(config.read_bytes())
        os.utime(other, ns=(info.st_atime_ns, info.st_mtime_ns))
        other.replace(config)
        assert fingerprint(registry) != before

    def test_the_settings_of_all_change_that_of_each(self, home: Home, registry: Registry) -> None:
        add(home, "beta")
        before = [instance.fingerprint for instance in registry.instances()]
        home.config.write_text("settle = 1\n")
        after = [instance.fingerprint for instance in registry.instances()]
        assert not set(before) & set(after)

    def test_enabling_changes_it_so_that_one_that_failed_is_tried_anew(
        self, home: Home, registry: Registry
    ) -> None:
        os.utime(home.instance().config, ns=(0, 0))
        before = fingerprint(registry)
        enable(home.instance())
        assert fingerprint(registry) != before

    def test_disabling_alone_does_not(self, home: Home, registry: Registry) -> None:
        before = fingerprint(registry)
        disable(home.instance())
        assert fingerprint(registry) == before
