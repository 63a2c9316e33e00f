"""A disposable home with a made-up history, and new packets that keep coming."""
