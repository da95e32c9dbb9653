"""Read, label, compare and edit the internals of language models and their adapters.

prompts → `encode` → transcripts → `generate` → transcripts → `capture` → traces

The table of contents is `__init__.pyi`; each name is imported when it is first used.
"""

from tracekit.lazy import attach

__all__ = attach(__name__, __file__)
