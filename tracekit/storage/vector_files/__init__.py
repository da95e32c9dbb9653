"""Vectors to and from other tools' files: safetensors, GGUF control vectors, `.pt` dictionaries."""

from tracekit.lazy import attach

__all__ = attach(__name__, __file__)
