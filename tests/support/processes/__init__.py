"""Other programs that tests start: a browser."""
