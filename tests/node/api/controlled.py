"""A node with its control socket, a client of it, and one that may say anything."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import anyio
from isthmus import Node
from isthmus.node.api.client import ControlClient
from isthmus.node.api.driver import serving
from isthmus.node.api.place import connected
from isthmus.transports.sockets import SocketStream

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


@asynccontextmanager
async def controlled(path, *, listen=LOOPBACK, **settings):
    """Run a node with a control socket; give it and a client."""
    node = Node(listen=listen)
    async with serving(path, node, **settings) as start, node:
        start()
        yield node, ControlClient(path)


def raw_client(path):
    """Connect to a control socket, to say anything."""
    return SocketStream(connected(path))


def request(method, target, *, body=None, headers=()):
    """Return a request as bytes; `body` is a value, or bytes as they are."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {target} HTTP/1.1", "Host: isthmus", *headers]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    return "\r\n".join([*lines, "", ""]).encode() + data


async def say(path, data):
    """Send bytes; return all that is answered, as the status and the body."""
    async with raw_client(path) as stream:
        await stream.send(data)
        return await answer_of(stream)


async def answer_of(stream):
    """Read an answer to its end."""
    received = b""
    while True:
        try:
            received += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            break
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode(), body
