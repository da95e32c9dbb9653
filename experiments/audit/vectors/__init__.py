"""A run's trait vectors: their stories, their evaluation, their table and figures."""
