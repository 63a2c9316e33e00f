"""The store: opening a database, what is known of its agents, recording batches, reading back."""
