"""Telling one content from another."""

from __future__ import annotations

import subprocess
import sys

from dataserver.spool.directory import mark_of


def test_a_content_has_the_same_mark_in_every_process() -> None:
    """One process reads a file, another asks whether it still is what was read."""
    program = "from dataserver.spool.directory import mark_of; print(mark_of(b'<agent_data/>'))"
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert int(said.stdout) == mark_of(b"<agent_data/>")


def test_white_space_at_the_end_makes_no_difference_anything_else_does() -> None:
    assert mark_of(b"<agent_data/>") == mark_of(b"<agent_data/>\r\n\n")
    assert mark_of(b"<agent_data/>") != mark_of(b"<agent_dato/>")
