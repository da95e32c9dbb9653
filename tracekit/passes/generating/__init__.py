"""Generation and its proof, captures while it runs, and an edit's strength."""
