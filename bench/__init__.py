"""The benchmark: what the server does per second, beside what the machine could do at most.

``python -m bench`` runs it; ``docs/benchmark.md`` says how to read the figures.
"""
