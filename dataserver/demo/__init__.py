"""A throw-away home with a history to look at, and fresh packets that keep coming."""
