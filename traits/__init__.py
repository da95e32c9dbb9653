"""Trait vectors: contrast sets, vectors from them, projections, and the statistics that judge them.

The table of contents is `__init__.pyi`; each name is imported when it is first used.
"""

from tracekit.lazy import attach

__all__ = attach(__name__, __file__)
