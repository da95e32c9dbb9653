"""Answers and what they gain: settings, kept products, halves of the prompts, strength."""
