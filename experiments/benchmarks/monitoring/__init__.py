"""Probes at work: what scoring inside the trace costs, and whether thresholds hold elsewhere."""
