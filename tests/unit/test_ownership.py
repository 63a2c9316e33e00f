"""Whose drop directory is it: by path, through links, through bind mounts, inside and around."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dataserver.config.paths import Home
from dataserver.errors import UsageError
from dataserver.fleet.ownership import check, claims, configured
from dataserver.fleet.registry import Registry
from tests.support.failures import failures

_BOUND = """
import sys
from pathlib import Path
from dataserver.errors import UsageError
from dataserver.fleet.ownership import check
from dataserver.config.paths import Home
home = Home(Path(sys.argv[1]))
for path in sys.argv[2:]:
    try:
        check(home, "beta", Path(path), [home.instance()])
        print()
    except UsageError as error:
        print(error.message)
"""


def checked(home: Home, data_in: Path, name: str = "beta") -> None:
    check(home, name, data_in, [instance.paths for instance in Registry(home).instances()])


def refused(home: Home, data_in: Path, why: str) -> None:
    with pytest.raises(UsageError, match=re.escape(why)) as caught:
        checked(home, data_in)
    assert "\n" not in str(caught.value)


def all_refused(home: Home, places: list[str], why: str) -> None:
    assert failures(lambda place: refused(home, home.root / place, why), places) == {}


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

    def test_a_bind_mount_does_not_hide_it(self, home: Home, tmp_path: Path) -> None:
        assert os.geteuid() == 0, "this test mounts: run it as root"
        (home.root / "data_in/sub").mkdir()
        mounts = ("data_in", "data_in/sub", ".")
        binds = []
        for number, bound in enumerate(mounts):
            target = tmp_path / f"mnt{number}"
            target.mkdir()
            binds.append(f'mount --bind "{home.root / bound}" "{target}"')
        asked = {
            "mnt0": "is that of instance main",
            "mnt0/new": "lies inside that of instance main",
            # Nothing is taken from below a drop directory: the two do not meet.
            "mnt1": "",
            "mnt2/data_in": "is that of instance main",
        }
        script = " && ".join([*binds, 'exec "$@"'])
        paths = [tmp_path / path for path in asked]
        command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", _BOUND]
        done = subprocess.run(
            [*command, home.root, *paths], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        said = dict(zip(asked, done.stdout.splitlines(), strict=True))
        wrong = {path: text for path, text in said.items() if asked[path] not in text}
        assert wrong == {}
        assert said["mnt1"] == ""

    def test_its_folder_is_no_place_either(self, home: Home) -> None:
        refused(home, home.instances / "main/mine", "lies in the folder of instance main")


class TestOfTheHome:
    def test_what_holds_the_homes_own_files_is_refused(self, home: Home) -> None:
        home.var.mkdir()
        all_refused(home, [".", "instances", "var", ".."], "holds the data server's own")

    def test_so_is_what_lies_in_folders_that_are_not_for_agents(self, home: Home) -> None:
        all_refused(home, ["var/in", "uploads", "keepalived/in"], "which is not for agents")

    def test_among_the_instances_only_below_its_own_folder(self, home: Home) -> None:
        places = ["instances/in", "instances/beta", "instances/units/in"]
        all_refused(home, places, "but not below beta")

    def test_below_its_own_folder_beside_the_others_or_elsewhere_it_is_free(
        self, home: Home, tmp_path: Path
    ) -> None:
        for free in (home.instances / "beta/data_in", home.root / "more", tmp_path / "in"):
            checked(home, free)

    def test_its_own_present_one_is_free(self, home: Home) -> None:
        checked(home, home.root / "data_in", name="main")


class TestBrokenFiles:
    def test_of_one_do_not_keep_the_rest_from_being_asked(self, home: Home) -> None:
        broken = home.instances / "alpha"
        broken.mkdir()

        def check(text: str) -> None:
            (broken / "instance.toml").write_text(text)
            refused(home, home.root / "data_in", "is that of instance main")

        texts = ["settle = 'soon'\n", "no such key = 1\n", "surprise = 1\n", "\0"]
        assert failures(check, texts) == {}

    def test_what_a_broken_one_says_still_counts(self, home: Home, tmp_path: Path) -> None:
        home.instance().config.write_text(f'data_in = "{tmp_path}/in"\nsettle = "soon"\n')
        refused(home, tmp_path / "in", "is that of instance main")

    def test_an_unreadable_file_means_the_default(self, home: Home) -> None:
        home.instance().config.write_bytes(b"\xff\xfe")
        assert claims(home.instance()) == [home.instances / "main/data_in"]

    def test_a_value_that_is_no_path_means_the_default(self, home: Home) -> None:
        for value in ("7", '""', '"a\\u0000b"'):
            home.instance().config.write_text(f"data_in = {value}\n")
            assert configured(home.instance()) == home.instances / "main/data_in", value
