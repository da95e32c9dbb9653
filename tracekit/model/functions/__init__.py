"""A user's function as a site or a reduction: fingerprinted, proved to keep tokens apart."""
