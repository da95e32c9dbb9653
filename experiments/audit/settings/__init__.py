"""Settings of an audit: their groups, presets, bounds, and the files they are read from."""
