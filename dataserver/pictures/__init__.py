"""Graphs drawn into files with matplotlib (extra `graph`)."""
