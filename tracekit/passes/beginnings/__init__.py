"""What rows of a capture begin with, read once: the prompt of samples, the same system message."""
