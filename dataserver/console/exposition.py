"""Prometheus texts of several instances as one: each name's samples together, described once.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_NAME = r"[A-Za-z_:][A-Za-z0-9_:]*"
_LABEL = r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\\n]|\\.)*)"'
_ABOUT = re.compile(rf"# (HELP|TYPE) ({_NAME}) (.*)")
_SAMPLE = re.compile(rf"({_NAME})(?:\{{((?:{_LABEL},?)*)\}})? (\S+)(?: -?[0-9]+)?")
_LABELS = re.compile(_LABEL)
#: What the samples of these types are called besides the type's name.
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


def merged(texts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """The lines of several (instance, text), in order of first appearance.

    A sample without the label ``instance`` gets it; what is no sample is left out, as is one that
    is there already.
    """
    about: dict[str, dict[str, str]] = {}
    samples: dict[str, dict[str, str]] = {}
    for instance, text in texts:
        # Not splitlines(): a label may hold a character that it takes for an end of line.
        for line in text.split("\n"):
            described = _ABOUT.fullmatch(line)
            if described:
                kind, name, words = described.groups()
                about.setdefault(name, {}).setdefault(kind, words)
                samples.setdefault(name, {})
                continue
            sample = _SAMPLE.fullmatch(line)
            if sample and _is_number(sample[5]):
                series = f"{sample[1]}{{{_labelled(sample[2] or '', instance)}}}"
                samples.setdefault(_family(sample[1], about), {}).setdefault(series, sample[5])
    for name, values in samples.items():
        yield from (f"# {kind} {name} {words}" for kind, words in about.get(name, {}).items())
        yield from (f"{series} {value}" for series, value in values.items())


def _labelled(labels: str, instance: str) -> str:
    found = _LABELS.findall(labels)
    if all(name != "instance" for name, _ in found):
        found.insert(0, ("instance", instance))
    return ",".join(f'{name}="{value}"' for name, value in found)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text


def _family(name: str, about: dict[str, dict[str, str]]) -> str:
    """The name under which a sample is described."""
    for kind, suffixes in _SUFFIXES.items():
        for suffix in suffixes:
            base = name.removesuffix(suffix)
            if base != name and about.get(base, {}).get("TYPE") == kind:
                return base
    return name
