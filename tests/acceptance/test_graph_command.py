"""`dataserver graph`: pictures of what a real server took in."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from lxml import etree

from tests.support import commands
from tests.support.commands import Run, Terminal
from tests.support.packets import START, module, packet
from tests.support.server import Place
from tests.support.waiting import PATIENCE

HOSTILE = "$\\frac{ <b>"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A home whose agent web1 sent each five minutes of three hours, but for one."""
    place = Place(tmp_path_factory.mktemp("graphs") / "home", "sqlite:///var/dataserver.db")
    for number in range(36):
        if 12 <= number < 24:
            continue
        time = START + number * 300
        modules = (
            module("load", str(number % 7 / 2)),
            module("up", str(int(number % 9 != 0)), "generic_proc"),
            module("state", f"state {number // 10}", "generic_data_string"),
            module(HOSTILE, "1"),
        )
        place.drop(f"web1.{time}.data", packet("web1", *modules, time=time, interval=300))
    done = commands.call("--home", place.home.root, "run", "--once", cwd=place.home.root)
    assert done.returncode == 0, done.stderr
    return place


def size(picture: bytes) -> tuple[int, int]:
    assert picture.startswith(b"\x89PNG\r\n")
    width, height = struct.unpack(">II", picture[16:24])
    return width, height


def test_a_graph_is_drawn_into_a_file(place: Place, dataserver: Run, tmp_path: Path) -> None:
    for number, name in enumerate((["load"], ["up"], ["state"], [HOSTILE], [])):
        target = tmp_path / f"graph{number}.png"
        asked = ("--width", 640, "--height", 300, "--dark", "-o", target)
        done = dataserver("--home", place.home.root, "graph", "web1", *name, *asked)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), name
        assert size(target.read_bytes()) == (640, 300)


def test_the_ending_says_what_it_is(place: Place, dataserver: Run, tmp_path: Path) -> None:
    for ending, head in (("svg", b"<?xml"), ("pdf", b"%PDF-")):
        target = tmp_path / f"graph.{ending}"
        done = dataserver("--home", place.home.root, "graph", "web1", "load", "-o", target)
        assert done.returncode == 0, done.stderr
        assert target.read_bytes().startswith(head)
    assert etree.parse(tmp_path / "graph.svg").getroot().tag.endswith("}svg")


def test_a_silence_is_told_in_the_picture(place: Place, dataserver: Run, tmp_path: Path) -> None:
    target = tmp_path / "graph.svg"
    span = ("--from", START, "--to", START + 36 * 300)
    for name in (["load"], []):
        done = dataserver("--home", place.home.root, "graph", "web1", *name, *span, "-o", target)
        assert done.returncode == 0, done.stderr
        # The backend keeps each text as a comment beside its outlines.
        assert "<!-- no packet -->" in target.read_text()
    assert "66.7 % of 36 expected packets arrived" in target.read_text()


def test_a_picture_may_go_to_standard_output(place: Place, dataserver: Run) -> None:
    done = dataserver("--home", place.home.root, "graph", "web1", "load", "-o", "-", text=False)
    assert done.returncode == 0
    assert size(done.stdout) == (1_000, 420)


def test_a_terminal_is_spared(place: Place, installed: Run) -> None:
    asked = ("--home", place.home.root, "graph", "web1", "load", "-o", "-")
    with Terminal() as terminal:
        done = installed(*asked, stdout=terminal.device, stderr=subprocess.PIPE)
        assert terminal.shown() == ""
    assert done.returncode == 2
    assert "cannot go to a terminal" in done.stderr


def test_what_cannot_be_drawn_is_told_in_one_line(
    place: Place, dataserver: Run, here: Path
) -> None:
    wrong = {}
    for arguments, code, said in (
        (["web1", "load", "-o", "x.gif"], 2, "use one of .png, .svg, .pdf"),
        (["web1", "load", "-o", "none/x.png"], 1, "cannot write none/x.png"),
        (["web1", "lod", "-o", "x.png"], 2, "did you mean 'load'?"),
        (["web7", "-o", "x.png"], 2, "there is no agent 'web7'"),
        (["web1", "load"], 2, "Missing option '-o'"),
        (["web1", "load", "-o", "x.png", "--width", "99999"], 2, "--width"),
        (["web1", "load", "-o", "x.png", "--from", "now", "--to", "-1h"], 2, "ends before"),
    ):
        done = dataserver("--home", place.home.root, "graph", *arguments)
        lines = done.stderr.splitlines()
        if (done.returncode, len(lines)) != (code, 1) or said not in lines[0]:
            wrong[*arguments] = done
        assert os.listdir(here) == []
    assert wrong == {}


def test_without_matplotlib_it_says_how_to_get_it(place: Place) -> None:
    # As if it were not installed: None in sys.modules makes every import of it fail.
    script = (
        "import contextlib, sys; sys.modules['matplotlib'] = None\n"
        "from dataserver.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "main()"
    )
    asked = ["--home", str(place.home.root), "graph", "web1", "load", "-o", "x.png"]
    done = subprocess.run(
        [sys.executable, "-c", script, *asked],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert "-m pip install --editable " in done.stderr
    assert done.stderr.count("\n") == 1
    # The overview is there all the same.
    assert "Commands:" in done.stdout
