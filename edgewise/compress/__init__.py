"""A cheaper network from a trained one: fewer channels, separate convolutions, activations."""
