"""Patching between prompts: what activations of one run change in another."""
