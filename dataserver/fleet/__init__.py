"""The instances of this machine: their folders, and the processes that run them."""
