"""The one error of the benchmark."""


class BenchError(Exception):
    """A measurement cannot go on, or what came out is wrong; the message says which and why."""
