"""What benchmarks measure with: paired timings, peak memory, synthetic captures."""
