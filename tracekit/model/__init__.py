"""A loaded model: standard names and sites, adapters on one set of weights, what was proved."""
