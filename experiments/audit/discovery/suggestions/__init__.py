"""From gains to candidate habits: sentences, terms, conduct, hidden states, triggers."""
