"""From numbers to met, not met or undecidable, level by level, and the words for it."""
