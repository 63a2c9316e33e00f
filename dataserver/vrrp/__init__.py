"""The twin pair: two hosts behind one address, which keepalived moves between them."""
