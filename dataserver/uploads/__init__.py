"""Uploads of agents by SSH: accounts, keys, sshd's configuration, rights."""
