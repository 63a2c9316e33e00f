"""Periodic passes over a whole database by one process: unknown, keep_alive, mode 2, downtimes."""
