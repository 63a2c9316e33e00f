"""The pages: each module reads records and has the routes of a page and its twin under `/api/`."""
