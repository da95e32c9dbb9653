"""What rows are made from: one audit's saved responses, each statistic computed once."""
