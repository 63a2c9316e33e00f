"""The code of others that the console serves is what its release holds, unedited."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import dataserver.console

_VENDOR = Path(dataserver.console.__file__).parent / "static" / "vendor"
_SUM = re.compile(r"^([0-9a-f]{64})  (\S+)$", re.MULTILINE)


def _listed() -> dict[str, str]:
    text = (_VENDOR / "README.md").read_text(encoding="utf-8")
    return {name: digest for digest, name in _SUM.findall(text)}


def test_each_vendored_file_has_the_checksum_that_the_readme_lists() -> None:
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in _VENDOR.iterdir()
        if path.name != "README.md"
    }

    assert found == _listed()


def test_the_version_in_the_readme_is_that_of_the_code() -> None:
    head = (_VENDOR / "uPlot.esm.js").read_text(encoding="utf-8")[:400]
    version = re.search(r"\(v([0-9.]+)\)", head)

    assert version is not None
    assert f"| {version[1]} |" in (_VENDOR / "README.md").read_text(encoding="utf-8")


def test_the_licence_lies_beside_it() -> None:
    assert "MIT License" in (_VENDOR / "uPlot.LICENSE").read_text(encoding="utf-8")
