"""The instances of this machine: their folders, who runs them, how agents reach them."""
