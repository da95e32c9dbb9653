"""The first subject of the audit: an organism that hides reward-model sycophancy."""
