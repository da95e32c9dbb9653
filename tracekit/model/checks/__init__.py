"""What is proved when a model is loaded, on a probe of a few short rows."""
