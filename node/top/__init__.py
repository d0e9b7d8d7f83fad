"""isthmus: a peer-to-peer networking node that speaks libp2p, on asyncio and trio."""
