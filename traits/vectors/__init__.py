"""Traits as directions: extracted, chosen, evaluated against nulls, projected on."""
