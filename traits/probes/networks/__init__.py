"""Probes that a solver fits: attention over tokens, a hidden layer."""
