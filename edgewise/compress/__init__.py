"""A smaller network from a trained one: channels taken out, convolutions taken apart."""
