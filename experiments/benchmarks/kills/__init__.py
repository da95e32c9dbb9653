"""Work that is killed or interrupted at a random moment, and goes on: `python -m` this."""
