"""From an address to a secure, multiplexed connection to an authenticated peer."""
