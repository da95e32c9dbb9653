"""Probes from labelled responses: fitted, scored, given a threshold, and judged."""
