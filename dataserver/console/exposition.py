"""Prometheus texts of several instances as one: each name's samples together, described once.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_ABOUT = re.compile(r"# (HELP|TYPE) ([A-Za-z_:][A-Za-z0-9_:]*) (.*)")
_SAMPLE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})? (\S+)")
#: What a histogram's samples are called besides its name.
_SUFFIXES = ("_bucket", "_sum", "_count")


def merged(texts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """The lines of several (instance, text), in order of first appearance.

    A sample without the label ``instance`` gets it; what is no sample is left out.
    """
    about: dict[str, dict[str, str]] = {}
    samples: dict[str, list[str]] = {}
    for instance, text in texts:
        for line in text.splitlines():
            described = _ABOUT.fullmatch(line)
            if described:
                kind, name, words = described.groups()
                about.setdefault(name, {}).setdefault(kind, words)
                samples.setdefault(name, [])
                continue
            sample = _SAMPLE.fullmatch(line)
            if sample:
                name, labels, value = sample.groups()
                shown = f"{name}{{{_labelled(labels or '', instance)}}} {value}"
                samples.setdefault(_family(name, about), []).append(shown)
    for name, lines in samples.items():
        yield from (f"# {kind} {name} {words}" for kind, words in about.get(name, {}).items())
        yield from lines


def _labelled(labels: str, instance: str) -> str:
    if re.search(r'(?:^|,)instance="', labels):
        return labels
    return ",".join(filter(None, (f'instance="{instance}"', labels)))


def _family(name: str, about: dict[str, dict[str, str]]) -> str:
    """The name under which a sample is described."""
    if name in about:
        return name
    for suffix in _SUFFIXES:
        base = name.removesuffix(suffix)
        if base != name and base in about:
            return base
    return name
