"""Probes by method and pooling on labelled texts, beside words, length and what knows nothing."""
