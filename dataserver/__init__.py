"""A file-drop data server: agents' packets from a directory into a database."""

__version__ = "0.1.0"
