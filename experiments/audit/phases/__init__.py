"""The phases of a run, in order: each reads what the one before wrote in the run's folder."""
