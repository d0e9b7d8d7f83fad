"""Peers on the same network, found by mDNS (https://github.com/libp2p/specs/blob/master/discovery/mdns.md)."""
