"""How well a probe tells what it has not seen: measures, baselines, what is by chance."""
