"""The audit itself under test: its size, its power, its blind part, its refusals."""
