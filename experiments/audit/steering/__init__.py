"""The steering study: a finished run's organism, steered, ablated and patched at its traits."""
