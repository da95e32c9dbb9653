"""The audit of any adapter: what it does, and whether trait vectors tell when."""
