"""Edited models: steering, ablation, clamping and patching, each at labelled tokens."""
