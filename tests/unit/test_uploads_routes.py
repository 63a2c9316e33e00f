"""What agents call the drop directories: aliases that are good, collide, or lead nowhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dataserver.config.paths import Home
from dataserver.errors import DataserverError, UsageError
from dataserver.uploads import plan as uploads
from dataserver.uploads import routes, sshd
from dataserver.uploads.routes import Route, parse_alias
from tests.support.failures import failures


@pytest.fixture
def directories(home: Home) -> dict[str, Path]:
    return {"main": home.root / "data_in", "beta": home.instance("beta").folder / "data_in"}


def test_an_alias_is_a_path_and_an_instance() -> None:
    expected = {
        "/var/spool/pandora/data_in": ("/var/spool/pandora/data_in", "main"),
        "/var/spool/pandora/data_in/": ("/var/spool/pandora/data_in", "main"),
        "/old/in=beta": ("/old/in", "beta"),
        "/x": ("/x", "main"),
    }
    assert {text: parse_alias(text) for text in expected} == expected


def test_a_path_that_is_no_good_or_taken_is_refused() -> None:
    texts = [
        "", "/", "relative", "/a/../b", "/a/./b", "/a//b", "/a b", "/a\nb", "/a;b", "/a$b", "/é",
        "=main", "/data_in", "/data_in/x", "/instances/x", "/uploads", "/keepalived/x", "/var",
        "/var/main", "/var/any-name/x", "/var/spool", "/a%b", '/a"b',
    ]  # fmt: skip

    def check(text: str) -> None:
        with pytest.raises(UsageError):
            parse_alias(text)

    assert failures(check, texts) == {}


def test_an_alias_of_two_instances_or_none_is_refused(
    home: Home, directories: dict[str, Path]
) -> None:
    with pytest.raises(UsageError, match="leads to the instance main already"):
        uploads.make_plan(home, directories, [("/old", "main"), ("/old", "beta")])
    with pytest.raises(UsageError, match="'gamma', which does not exist or is broken"):
        uploads.make_plan(home, directories, [("/old", "gamma")])
    plan = uploads.make_plan(home, directories, [("/old", "main"), ("/old", "main")])
    assert [each.path for each in plan.routes if each.alias] == ["/old"]


def test_a_link_leads_to_the_drop_directory_inside_and_outside_of_the_chroot(
    home: Home, directories: dict[str, Path]
) -> None:
    directories["main"].mkdir(exist_ok=True)
    route = Route("/a/b/c", "main", directories["main"], alias=True)
    assert routes.link(home, route) is True
    assert routes.link(home, route) is False
    assert os.readlink(home.root / "a/b/c") == "../../data_in"
    assert (home.root / "a/b/c").resolve() == directories["main"].resolve()
    assert list(routes.link_problems(home, [route])) == []


@pytest.mark.parametrize("there", ["file", "folder", "other link", "file on the way", "link above"])
def test_a_link_replaces_nothing_and_follows_nothing(
    home: Home, directories: dict[str, Path], tmp_path: Path, there: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (home.root / "a").mkdir()
    link = home.root / "a/b"
    if there == "file":
        link.write_text("kept")
    elif there == "folder":
        link.mkdir()
    elif there == "other link":
        link.symlink_to("/tmp")
    else:
        (home.root / "a").rmdir()
        if there == "link above":
            (home.root / "a").symlink_to(elsewhere)
        else:
            (home.root / "a").write_text("kept")
    with pytest.raises(DataserverError):
        routes.link(home, Route("/a/b", "main", directories["main"], alias=True))
    assert list(elsewhere.iterdir()) == []


def test_only_what_needs_a_line_has_one(home: Home, directories: dict[str, Path]) -> None:
    text = uploads.make_plan(home, directories, [("/old", "beta")]).paths.text
    lines = [line.split(" ")[:2] for line in text.splitlines() if not line.startswith("#")]
    assert lines == [["/data_in", "main"], ["/old", "beta"]]


def test_a_home_whose_path_would_need_quoting_is_refused() -> None:
    def check(name: str) -> None:
        with pytest.raises(UsageError, match="cannot be a home with uploads"):
            sshd.drop_in(Home(Path("/srv") / name))

    names = ["with space", "per%cent", 'quo"te', "new\nline", "dol$lar"]
    assert failures(check, names) == {}
    assert sshd.drop_in(Home(Path("/srv/plain")))
