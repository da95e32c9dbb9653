"""Models of inspect_ai that answer through tracekit; the one room that imports inspect_ai."""
