"""Help from a third peer: to be reached, to learn how one is reached, to meet without it."""
