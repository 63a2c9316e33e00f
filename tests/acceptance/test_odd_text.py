"""What becomes of packets whose text is odd, all the way: markup, encodings, names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import Run
from tests.support.server import Place

URL = "sqlite:///var/dataserver.db"

#: Written by agents as they are; each with \r\n, as on Windows.
GOOD = """\
<?xml version='1.0' encoding='UTF-8'?>
<agent_data agent_name='ps-ü' timestamp='2026-12-01 10:00:00' interval='300' os_name='Windows'>
<module><name><![CDATA[Größe]]></name><type>generic_data</type><data><![CDATA[5]]></data></module>
</agent_data>
""".replace("\n", "\r\n").encode()
LATER = GOOD.replace(b"10:00:00", b"10:05:00").replace(b">5<", b">6<")
MIXED = LATER.replace("ß".encode(), b"\xdf")
MARKED = b"\xef\xbb\xbf" + LATER.replace(b"UTF-8", b"ISO-8859-1").replace(b"10:05", b"10:10")
APOSTROPHE = (
    b"<?xml version='1.0' encoding='UTF-8'?>\n"
    b"<agent_data description='Bob's box' group='Servers' os_name='linux' interval='300' "
    b"agent_name='a1' timestamp='2026/12/01 10:00:00'>\n"
    b"<module><name>Load</name><type>generic_data</type><data>1</data></module>\n</agent_data>"
)
SCRIPT = APOSTROPHE.replace(b"'a1'", b"'&lt;script>alert(1)&lt;/script>'").replace(
    b"Bob's", b"Bobs"
)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "home", URL)


def test_a_bad_byte_or_a_byte_order_mark_makes_no_second_agent(
    dataserver: Run, place: Place
) -> None:
    for name, content in {"a.1": GOOD, "a.2": MIXED, "a.3": MARKED}.items():
        place.drop(f"{name}.data", content)
    done = dataserver("run", "--once", "--home", place.home.root)
    assert done.returncode == 0
    assert "bytes that do not fit" in done.stderr
    agents = dataserver("agents", "--json", "--home", place.home.root).stdout
    assert agents.count('"name": ') == 1
    modules = dataserver("modules", "ps-ü", "--json", "--home", place.home.root).stdout
    assert modules.count('"name": ') == 1


def test_an_apostrophe_in_an_attribute_is_stored_and_told(dataserver: Run, place: Place) -> None:
    path = place.drop("a1.1.data", APOSTROPHE)
    shown = dataserver("packet", "show", path).stdout
    assert "description: Bob's box" in shown
    assert "note: a bare quotation mark in its description" in shown
    done = dataserver("run", "--once", "--home", place.home.root)
    assert "a packet of agent 'a1': a bare quotation mark" in done.stderr
    assert not path.exists()
    assert '"a1"' in dataserver("agents", "--json", "--home", place.home.root).stdout


def test_a_name_that_loses_its_script_tags_is_told_once_for_each_agent(
    dataserver: Run, place: Place
) -> None:
    path = place.drop("s.1.data", SCRIPT)
    place.drop("s.2.data", SCRIPT.replace(b"10:00:00", b"10:05:00"))
    told = "agent '<script>alert(1)</script>' is stored as 'alert(1)'"
    assert told in dataserver("packet", "show", path).stdout
    done = dataserver("run", "--once", "--home", place.home.root)
    assert done.stderr.count(told) == 1
