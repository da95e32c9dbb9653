"""What exploits in an answer: rules of its biases as data, and labelled answers."""
