"""A chat in the terminal.

On one machine: chat.py /ip4/0.0.0.0/tcp/4001, where it listens. On the others: chat.py and the
address that it prints, which ends in /p2p/ and its peer id.
"""

import os
import sys

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from isthmus import Node, Priority, run
from isthmus.node.printable import printable
from isthmus.transports.core.errors import P2PError

CHAT = "/chat/1.0.0"
MAX_LINE = 4096  # bytes that one line of a peer may take
here = set()  # the streams of everybody who is here


async def hear(stream):
    """Print the lines of a peer, each safe for the terminal, until it leaves."""
    name = str(stream.connection.remote_peer)[-6:]
    lines = BufferedByteReceiveStream(stream)
    here.add(stream)
    print(f"{name} is here", flush=True)
    try:
        while True:
            line = await lines.receive_until(b"\n", MAX_LINE)
            print(f"{name}: {printable(line.decode(errors='replace'), limit=MAX_LINE)}", flush=True)
    except (anyio.IncompleteRead, anyio.BrokenResourceError, anyio.DelimiterNotFound):
        stream.reset()
    finally:
        here.discard(stream)
        print(f"{name} has left", flush=True)


async def speak():
    """Send what is typed to everybody, until Ctrl-D."""
    while True:
        await anyio.wait_readable(sys.stdin.fileno())
        line = os.read(sys.stdin.fileno(), MAX_LINE)
        if not line:
            return
        for stream in tuple(here):
            with anyio.move_on_after(1):  # who does not read must not keep the others waiting
                try:
                    await stream.send(line)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    here.discard(stream)


async def main(address):
    listen = () if "/p2p/" in address else address
    async with Node(listen=listen) as node, anyio.create_task_group() as tasks:
        node.handle(CHAT, hear, priority=Priority.HIGH)
        if listen:
            print(f"The others run: chat.py {node.addresses[0]}", flush=True)
        else:
            stream = await node.open_stream(address, CHAT, priority=Priority.HIGH)
            tasks.start_soon(hear, stream)
        await speak()
        tasks.cancel_scope.cancel()


if len(sys.argv) != 2:
    print(__doc__)
else:
    try:
        run(main, sys.argv[1])
    except (P2PError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        pass  # Ctrl-C is as good as Ctrl-D
