"""What a reader sees of a finished run: table, figures, the page and its viewer."""
