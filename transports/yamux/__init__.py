"""Yamux with priorities."""
