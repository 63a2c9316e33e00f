"""Instances run by systemd: its files, asking it, what it may reach."""
