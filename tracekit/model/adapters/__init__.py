"""Adapters: attached, switched, scaled and taken off, the base as it was before."""
