"""WebSocket, plain and over TLS, as a carrier of byte streams; `transport` has the transport."""
