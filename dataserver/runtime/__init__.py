"""What a running process publishes about itself: heartbeat, status, metrics."""
