"""The rules for values, statuses, times and events.  Pure: no file, socket, database or clock."""
