"""What runs the model: capture, generation, logits, gradients, the strength of an edit."""
