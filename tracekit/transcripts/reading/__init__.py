"""Prompts of files and rows: messages, fields and their usual names."""
