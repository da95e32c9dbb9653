"""Generation against its rivals."""
