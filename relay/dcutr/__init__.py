"""Direct connection upgrade through relay: from a circuit to a direct path."""
