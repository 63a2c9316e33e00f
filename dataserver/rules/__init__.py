"""What values, statuses, times and events mean.  Pure: no file, socket, database or clock."""
