"""What does an adapter do that its base does not? Found without labels, then confirmed.

answers → gains of tokens → spans → candidates (one half of the prompts) → rates (the other half)
"""
