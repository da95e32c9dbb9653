"""A second subject of the audit: prompts, labels and settings, and no code of its own."""
