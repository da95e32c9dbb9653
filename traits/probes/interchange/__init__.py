"""Probes to and from other tools: files of tensors, scikit-learn, tables of scores."""
