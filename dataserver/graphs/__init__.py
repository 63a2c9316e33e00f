"""The data of graphs: modules as step functions and agents' packets, with spans of silence."""
