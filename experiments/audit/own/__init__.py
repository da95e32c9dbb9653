"""The audit of an adapter of one's own: its habits first, then what trait vectors tell of them."""
