"""Sections on detection: how well a score that calibration biases choose tells exploiting."""
