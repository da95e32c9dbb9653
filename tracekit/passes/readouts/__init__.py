"""What is read off a forward beside its activations: logits, comparisons, gradients."""
