"""Instances run by systemd: its files, and controlling it through its programs."""
