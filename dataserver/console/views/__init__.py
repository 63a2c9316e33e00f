"""What pages and the API show, as records; nothing of HTTP in here."""
