"""Any bytes are a configuration, or a ConfigError that says why not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dataserver.config.perl import decode, parse, read, recognised
from dataserver.errors import ConfigError

KEYS = st.sampled_from(["dbhost", "dbport", "autocreate_group", "verbosity", "master", "dbssl"])
LINES = st.binary(max_size=30) | st.tuples(KEYS, st.text(max_size=20)).map(
    lambda line: " ".join(line).encode()
)


@given(st.lists(LINES, max_size=8).map(b"\n".join))
def test_any_bytes_are_a_configuration_or_a_config_error(content: bytes) -> None:
    text, _ = decode(content)
    recognised(text)
    try:
        found = read(text, "host")
    except ConfigError:
        return
    said = {key for note in found.notes for key in note.key.split(", ")}
    assert parse(text).keys() <= {*said, *found.same, *found.others, "dbengine"}


def test_a_number_of_any_length_is_a_number() -> None:
    assert read(f"verbosity {'9' * 100_000}", "host").shared["log_level"] == "debug"
