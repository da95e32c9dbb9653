"""Benchmarks, one runnable file each, from a checkout only; see `results`."""
