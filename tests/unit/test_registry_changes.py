"""Making and removing instances: whole or not at all, also when the command is killed."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dataserver.config.paths import Home, Paths
from dataserver.errors import DataserverError, LockedError, UsageError
from dataserver.fleet import aside, removal
from dataserver.fleet.registry import Registry
from dataserver.spool.lock import InstanceLock

#: Does something to the instance beta, and dies when a function is called for the so-manieth time.
_KILLED = """
import importlib, os, signal, sys
from pathlib import Path
from dataserver.fleet.registry import Registry
from dataserver.config.paths import Home
home, act, module, name, call = sys.argv[1:]
module = importlib.import_module(f"dataserver.fleet.{module}")
real, calls = getattr(module, name), 0
def dying(*args, **options):
    global calls
    calls += 1
    if calls == int(call):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **options)
setattr(module, name, dying)
registry = Registry(Home(Path(home)))
registry.create("beta", None, {}) if act == "create" else registry.remove("beta")
"""


@pytest.fixture
def registry(home: Home) -> Registry:
    home.var.mkdir()
    return Registry(home)


def add(registry: Registry, name: str = "beta", data_in: Path | None = None) -> Paths:
    return registry.create(name, data_in, {}).paths


def left(home: Home) -> set[str]:
    """What instances and var hold of `beta`, under whatever name."""
    folders = (home.instances, home.var)
    return {
        f"{folder.name}/{name}"
        for folder in folders
        for name in os.listdir(folder)
        if "beta" in name
    }


def killed(home: Home, act: str, module: str, name: str, call: int = 1) -> None:
    """``create`` or ``remove`` beta, killed when a function of ``module`` is called."""
    command = [sys.executable, "-c", _KILLED, home.root, act, module, name, str(call)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


class TestMaking:
    def test_it_appears_whole_enabled_and_of_modes_that_others_can_use(
        self, registry: Registry
    ) -> None:
        before = os.umask(0o077)
        try:
            paths = add(registry)
        finally:
            os.umask(before)
        assert registry.get("beta").enabled
        modes = [path.stat().st_mode & 0o777 for path in (paths.folder, paths.config)]
        assert modes == [0o755, 0o644]
        assert left(registry.home) == {"instances/beta"}

    def test_made_by_root_it_belongs_to_the_homes_owner(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        assert os.geteuid() == 0, "this test gives files away: run it as root"
        os.chown(registry.home.instances, 12345, 12346)
        paths = add(registry, data_in=tmp_path / "new/in")
        made = (paths.folder, paths.config, tmp_path / "new", tmp_path / "new/in")
        assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(12345, 12346)}

    def test_one_that_failed_leaves_no_drop_directory_elsewhere(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        registry.home.config.write_text("settle_max = 1\n")
        with pytest.raises(DataserverError, match="settle_max"):
            registry.create("beta", tmp_path / "new/in", {})
        assert left(registry.home) == set()
        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize("step", ["_write", "_check", "move"])
    def test_killed_amid_it_there_is_none_and_the_next_one_tidies_up(
        self, registry: Registry, step: str
    ) -> None:
        killed(registry.home, "create", "creation", step)
        assert left(registry.home) == {"instances/.new-beta"}
        assert [instance.name for instance in registry.instances()] == ["main"]
        add(registry, "gamma")
        assert left(registry.home) == set()

    def test_a_file_in_the_way_of_a_drop_directory_is_told(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(UsageError, match="not a directory"):
            add(registry, data_in=tmp_path / "file")
        with pytest.raises(DataserverError, match="Not a directory"):
            add(registry, data_in=tmp_path / "file/in")

    def test_while_another_command_makes_or_removes_one_it_waits_and_says_so(
        self, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(aside, "_TRIES", 2)
        fd = os.open(registry.home.instances, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            with pytest.raises(LockedError, match="another command"):
                add(registry)
        finally:
            os.close(fd)
        add(registry)


class TestRemoving:
    def test_nothing_is_left(self, registry: Registry) -> None:
        paths = add(registry)
        (paths.var / "rejected").mkdir(parents=True)
        (paths.folder / "data_in/conf").mkdir()
        assert registry.remove("beta") == []
        assert left(registry.home) == set()

    def test_one_that_runs_is_not_removed(self, registry: Registry) -> None:
        paths = add(registry)
        with (
            InstanceLock("beta", paths.var, paths.folder / "data_in"),
            pytest.raises(LockedError, match="runs"),
        ):
            registry.remove("beta", force=True)
        assert paths.config.exists()

    def test_what_comes_at_the_last_moment_puts_it_back(
        self, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        paths = add(registry)
        real = removal.move

        def racing(source: Path, target: Path) -> None:
            if source == paths.folder:
                (source / "data_in/a.1.data").touch()
            real(source, target)

        monkeypatch.setattr(removal, "move", racing)
        with pytest.raises(UsageError, match="1 packet queued"):
            registry.remove("beta")
        assert left(registry.home) == {"instances/beta"}
        assert (paths.folder / "data_in/a.1.data").exists()

    @pytest.mark.parametrize("absolute", [True, False])
    def test_packets_are_seen_however_its_file_names_its_own_folder(
        self, registry: Registry, absolute: bool
    ) -> None:
        paths = add(registry)
        text = f'data_in = "{paths.folder}/data_in"\n' if absolute else ""
        paths.config.write_text(text)
        (paths.folder / "data_in/a.1.data").touch()
        with pytest.raises(UsageError, match="1 packet queued"):
            registry.remove("beta")
        assert registry.remove("beta", force=True) == []
        assert left(registry.home) == set()

    def test_packets_on_their_way_out_count(self, registry: Registry) -> None:
        paths = add(registry)
        (paths.var / "leaving").mkdir(parents=True)
        (paths.var / "leaving/a.1.data").touch()
        with pytest.raises(UsageError, match="1 packet queued"):
            registry.remove("beta")

    @pytest.mark.parametrize(("step", "call"), [("move", 2), ("erase", 1), ("erase", 2)])
    def test_killed_amid_it_the_next_command_finishes_it(
        self, registry: Registry, step: str, call: int
    ) -> None:
        add(registry).var.mkdir()
        killed(registry.home, "remove", "removal", step, call)
        assert left(registry.home)
        add(registry, "gamma")
        # Left by one killed before it came to that; the next of its name finds it.
        assert left(registry.home) <= {"var/beta"}

    def test_killed_before_the_look_the_packets_come_back(self, registry: Registry) -> None:
        paths = add(registry)
        (paths.folder / "data_in/a.1.data").touch()
        killed(registry.home, "remove", "removal", "_leftovers")
        assert left(registry.home) == {"instances/.removed-beta"}
        add(registry, "gamma")
        assert left(registry.home) == {"instances/beta"}
        assert (paths.folder / "data_in/a.1.data").exists()

    def test_rejected_packets_of_one_half_removed_come_back(self, registry: Registry) -> None:
        kept = registry.home.var / ".removed-beta/rejected"
        kept.mkdir(parents=True)
        (kept / "1767225600000-1a2b3c-clock.data").touch()
        add(registry, "gamma")
        assert left(registry.home) == {"var/beta"}

    def test_a_drop_directory_that_another_uses_too_stays(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        shared = tmp_path / "shared"
        add(registry, data_in=shared)
        other = add(registry, "gamma")
        other.config.write_text(f'data_in = "{shared}"\n')
        assert registry.remove("beta") == [f"{shared} stays"]
        assert shared.is_dir()

    def test_a_folder_that_is_a_link_goes_and_what_it_leads_to_stays(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        (elsewhere / "data_in").mkdir(parents=True)
        (elsewhere / "instance.toml").touch()
        (registry.home.instances / "beta").symlink_to(elsewhere)
        said = registry.remove("beta")
        assert f"{elsewhere} stays" in said[0]
        assert (elsewhere / "instance.toml").exists()
        assert left(registry.home) == set()
