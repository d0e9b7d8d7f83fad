"""Noise XX, as libp2p uses it."""
