"""Twelve tasks of a tracing researcher: lines here, in nnterp and in TransformerLens, and values.

`python -m experiments.benchmarks.tracing_tasks` says how it is run.
"""
