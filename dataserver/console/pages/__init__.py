"""Routes: each page with its twin under `/api/`."""
