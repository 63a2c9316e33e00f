"""Packets: bytes to records.  Pure; see docs/packet-format.md."""
