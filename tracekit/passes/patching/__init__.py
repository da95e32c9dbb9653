"""Patching between prompts: what one run's activations change in another, measured or by gradients."""
