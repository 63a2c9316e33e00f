"""Parsing packets: from bytes to records.  Pure; see docs/packet-format.md."""
