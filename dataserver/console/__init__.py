"""The console: a read-only web application over one home and its database."""
