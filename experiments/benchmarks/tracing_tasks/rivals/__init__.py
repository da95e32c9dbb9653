"""The tasks with other libraries, run by an interpreter of their own; nothing here imports them."""
