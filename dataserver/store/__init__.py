"""The database: its tables, opening it, and recording and reading what packets carry."""
