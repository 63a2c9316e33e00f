"""A data server: stores agents' packets from a drop directory in a database."""

__version__ = "0.1.0"
