"""What one process does for a database now and then: unknown, keep_alive, mode 2, downtimes."""
