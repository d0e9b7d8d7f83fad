"""The Kademlia DHT, as a client: it asks and announces, and never serves."""
