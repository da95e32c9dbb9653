"""Damaged inputs, and what becomes of them: a clear refusal, or a finding."""
