"""What a user holds: the node, its protocols and its commands."""
