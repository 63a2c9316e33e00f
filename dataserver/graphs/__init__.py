"""What graphs show: modules as step functions, agents' packets, both with the spans of silence."""
