"""Circuit relay v2, both sides."""
