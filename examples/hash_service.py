"""A service with limits: send it a file of any size it takes, and it answers with the SHA-256."""

import hashlib

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from isthmus import Node, run
from isthmus.transports.core.errors import StreamReset

HASH = "/hash/1.0.0"
MAX_BYTES = 10_000_000  # of one file
MAX_SECONDS = 30  # for one file
TOO_LONG, TOO_SLOW = 1, 2  # what the service resets a stream with; other codes are not its own


async def serve_hash(stream):
    """Read a length of eight bytes and that many bytes; answer with 32 bytes."""
    with anyio.move_on_after(MAX_SECONDS) as scope:
        data = BufferedByteReceiveStream(stream)
        left = int.from_bytes(await data.receive_exactly(8), "big")
        if left > MAX_BYTES:
            stream.reset(TOO_LONG)
            return
        digest = hashlib.sha256()
        while left:
            chunk = await data.receive(min(left, 65_536))
            digest.update(chunk)
            left -= len(chunk)
        await stream.send(digest.digest())
    if scope.cancelled_caught:
        stream.reset(TOO_SLOW)


async def ask_hash(node, to, chunks, size):
    """Send a file in chunks of any size, and return the digest that the peer answers with."""
    stream = await node.open_stream(to, HASH)
    async with stream:
        await stream.send(size.to_bytes(8, "big"))
        for chunk in chunks:
            await stream.send(chunk)
        await stream.send_eof()
        return await BufferedByteReceiveStream(stream).receive_exactly(32)


async def main():
    async with Node(listen="/ip4/127.0.0.1/tcp/0") as server, Node() as client:
        server.handle(HASH, serve_hash)
        digest = await ask_hash(client, server.addresses, [b"hello", b" world"], 11)
        print(digest.hex()[:16])  # prints b94d27b9934d3e08
        try:
            await ask_hash(client, server.addresses, [], MAX_BYTES + 1)
        except StreamReset as reset:
            print(reset.remote, reset.code == TOO_LONG)  # prints True True


if __name__ == "__main__":
    run(main)
