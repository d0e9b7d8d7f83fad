"""AutoNAT v2: whether others can dial this node."""
