"""How agents get their packets here by SSH: accounts, keys, sshd's configuration, rights."""
