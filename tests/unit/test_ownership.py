"""Whose drop directory is it: by path, through links, through bind mounts, inside and around."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dataserver.errors import UsageError
from dataserver.fleet.ownership import check, claims, configured
from dataserver.fleet.registry import Registry
from dataserver.home import Home

_BOUND = """
import sys
from pathlib import Path
from dataserver.errors import UsageError
from dataserver.fleet.ownership import check
from dataserver.home import Home
home = Home(Path(sys.argv[1]))
try:
    check(home, "beta", Path(sys.argv[2]), [home.instance()])
except UsageError as error:
    print(error.message)
"""


def checked(home: Home, data_in: Path, name: str = "beta") -> None:
    check(home, name, data_in, [instance.paths for instance in Registry(home).instances()])


def refused(home: Home, data_in: Path, why: str) -> None:
    with pytest.raises(UsageError, match=re.escape(why)) as caught:
        checked(home, data_in)
    assert "\n" not in str(caught.value)


class TestOfAnotherInstance:
    def test_it_is_refused_with_the_others_name(self, home: Home) -> None:
        refused(home, home.root / "data_in", "is that of instance main")

    def test_so_is_a_directory_inside_also_one_that_is_not_there_yet(self, home: Home) -> None:
        refused(home, home.root / "data_in/new/deeper", "lies inside that of instance main")

    def test_so_is_one_around(self, home: Home, tmp_path: Path) -> None:
        outer = tmp_path / "outer"
        (outer / "in").mkdir(parents=True)
        home.instance().config.write_text(f'data_in = "{outer}/in"\n')
        refused(home, outer, "lies around that of instance main")

    def test_so_is_one_that_the_other_has_not_made_yet(self, home: Home, tmp_path: Path) -> None:
        home.instance().config.write_text(f'data_in = "{tmp_path}/later"\n')
        refused(home, tmp_path / "later", "is that of instance main")

    @pytest.mark.parametrize("linked", ["data_in", "."])
    def test_a_link_does_not_hide_it(self, home: Home, tmp_path: Path, linked: str) -> None:
        link = tmp_path / "link"
        link.symlink_to(home.root / linked)
        refused(home, link / ("" if linked == "data_in" else "data_in"), "is that of instance main")

    def test_a_link_in_the_others_file_does_not_hide_it(self, home: Home, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(home.root / "data_in")
        home.instance().config.write_text(f'data_in = "{link}"\n')
        refused(home, home.root / "data_in", "is that of instance main")

    @pytest.mark.parametrize(
        ("bound", "named", "why"),
        [
            ("data_in", "", "is that of instance main"),
            ("data_in", "new", "lies inside that of instance main"),
            ("data_in/sub", "", None),
            (".", "data_in", "is that of instance main"),
        ],
    )
    def test_a_bind_mount_does_not_hide_it(
        self, home: Home, tmp_path: Path, bound: str, named: str, why: str | None
    ) -> None:
        assert os.geteuid() == 0, "this test mounts: run it as root"
        (home.root / "data_in/sub").mkdir()
        (tmp_path / "mnt").mkdir()
        script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
        python = [sys.executable, "-c", _BOUND, home.root, tmp_path / "mnt" / named]
        shell = ["sh", "-c", script, "sh", home.root / bound, tmp_path / "mnt"]
        command = ["unshare", "--mount", *shell, *python]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        if why is None:
            # Nothing is taken from below a drop directory: the two do not meet.
            assert done.stdout == ""
        else:
            assert why in done.stdout

    def test_its_folder_is_no_place_either(self, home: Home) -> None:
        refused(home, home.instances / "main/mine", "lies in the folder of instance main")


class TestOfTheHome:
    @pytest.mark.parametrize("where", [".", "instances", "var", ".."])
    def test_what_holds_the_homes_own_files_is_refused(self, home: Home, where: str) -> None:
        home.var.mkdir()
        refused(home, home.root / where, "holds the data server's own")

    @pytest.mark.parametrize("where", ["var/in", "uploads", "keepalived/in"])
    def test_so_is_what_lies_in_folders_that_are_not_for_agents(
        self, home: Home, where: str
    ) -> None:
        refused(home, home.root / where, "which is not for agents")

    @pytest.mark.parametrize("where", ["instances/in", "instances/beta", "instances/units/in"])
    def test_among_the_instances_only_below_its_own_folder(self, home: Home, where: str) -> None:
        refused(home, home.root / where, "but not below beta")

    def test_below_its_own_folder_beside_the_others_or_elsewhere_it_is_free(
        self, home: Home, tmp_path: Path
    ) -> None:
        for free in (home.instances / "beta/data_in", home.root / "more", tmp_path / "in"):
            checked(home, free)

    def test_its_own_present_one_is_free(self, home: Home) -> None:
        checked(home, home.root / "data_in", name="main")


class TestBrokenFiles:
    @pytest.mark.parametrize(
        "text", ["settle = 'soon'\n", "no such key = 1\n", "surprise = 1\n", "\0"]
    )
    def test_of_one_do_not_keep_the_rest_from_being_asked(self, home: Home, text: str) -> None:
        broken = home.instances / "alpha"
        broken.mkdir()
        (broken / "instance.toml").write_text(text)
        refused(home, home.root / "data_in", "is that of instance main")

    def test_what_a_broken_one_says_still_counts(self, home: Home, tmp_path: Path) -> None:
        home.instance().config.write_text(f'data_in = "{tmp_path}/in"\nsettle = "soon"\n')
        refused(home, tmp_path / "in", "is that of instance main")

    def test_an_unreadable_file_means_the_default(self, home: Home) -> None:
        home.instance().config.write_bytes(b"\xff\xfe")
        assert claims(home.instance()) == [home.instances / "main/data_in"]

    @pytest.mark.parametrize("value", ["7", '""', '"a\\u0000b"'])
    def test_a_value_that_is_no_path_means_the_default(self, home: Home, value: str) -> None:
        home.instance().config.write_text(f"data_in = {value}\n")
        assert configured(home.instance()) == home.instances / "main/data_in"
