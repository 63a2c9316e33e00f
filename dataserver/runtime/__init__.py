"""What every kind of server process needs."""
