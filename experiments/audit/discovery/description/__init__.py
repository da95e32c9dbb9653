"""What an adapter's weights and activations look like, as description: no test is made of it."""
