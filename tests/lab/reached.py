"""isthmus with the contract of the foreign peer programs, as far as being reached goes.

    reached.py --listen MULTIADDR [--backend asyncio|trio] [--relay PRESET]
        [--circuit-duration SECONDS] [--via RELAY] [--confidence N]

The commands, and what they return, are those of `isthmus.benchmarks.peers.control`. A relay that a
reservation is to be held at is named by --via, as a user would; `reserve` waits for that.
AutoNAT and DCUtR are there as they are by default.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

import anyio
import anyio.to_thread
from isthmus import Multiaddr, Node
from isthmus.node.config import NodeConfig
from isthmus.node.events import HolePunched, HolePunchFailed
from isthmus.relay.autonat.config import AutonatConfig
from isthmus.relay.autonat.reachability import Question, Reachability, Server
from isthmus.relay.circuit.limits import RelayServerConfig
from isthmus.relay.dcutr.service import is_relayed
from isthmus.transports.core.errors import P2PError
from isthmus.transports.core.interfaces import Side

ECHO = "/echo/1.0.0"
LOOK = 0.02
"""Seconds between two looks at what no event tells."""
VERDICTS = {Reachability.PUBLIC: True, Reachability.PRIVATE: False, Reachability.UNKNOWN: None}
FAILURES = (P2PError, OSError, anyio.BrokenResourceError, anyio.EndOfStream, KeyError, TypeError)


async def until(condition):
    """Look again and again until there is an answer, and return it."""
    while True:
        if found := condition():
            return found
        await anyio.sleep(LOOK)


class Commands:
    def __init__(self, node):
        self.node = node
        self._how = {}

    async def note(self):
        """Remember how circuits were upgraded, for `upgraded`."""
        async for event in self.node.events():
            if isinstance(event, HolePunched):
                self._how[event.peer] = "punch" if event.attempts else "reversal"
            elif isinstance(event, HolePunchFailed):
                self._how[event.peer] = event

    async def connect(self, *, address):
        began = anyio.current_time()
        connection = await self.node.connect(address)
        took = anyio.current_time() - began
        return {"peer_id": str(connection.remote_peer), "ms": took * 1e3}

    async def reserve(self, *, address):
        relay = peer_of(address)

        def held():
            return [each for each in self.node.relays if each.relay == relay and each.addresses]

        (status,) = await until(held)
        own = [str(each.with_peer(self.node.peer_id)) for each in status.addresses]
        return {"addresses": own, "expires": status.until, "limit": None}

    async def connections(self, *, address):
        return {"connections": [described(each) for each in self._to(address)]}

    async def can_punch(self):
        await until(self.node.reach.punchable)
        return {"ready": True}

    async def upgraded(self, *, address):
        peer = peer_of(address)

        def direct():
            return [each for each in self._to(address) if not is_relayed(each)]

        await until(lambda: direct() or isinstance(self._how.get(peer), HolePunchFailed))
        if not direct():
            raise P2PError(f"hole punching has given up: {self._how[peer].reason}")
        # Whoever accepted the circuit is told how it went, a moment after the connection is there.
        if any(is_relayed(each) and each.side is Side.LISTENER for each in self._to(address)):
            await until(lambda: peer in self._how)
        return {**described(direct()[0]), "how": self._how.get(peer)}

    async def autonat(self, *, address, addresses=None, seconds=5):
        """Have a server asked about what this node would ask, or ask it about these addresses."""
        await self.node.connect(address)
        reach = self.node.reach
        found = {Multiaddr.parse(each): None for each in addresses or ()}

        async def ask():
            while True:
                # A server refuses some, or says nothing, as long as it does not know this node.
                server = Server(peer_of(address), address)
                told = await reach.client.ask(Question(server, tuple(found)))
                if told is not None:
                    found.update([told])
                    return

        def are_judged():
            found.update((each, VERDICTS[kind]) for each, kind in reach.verdicts().items())
            return found and None not in found.values()

        with anyio.move_on_after(seconds):
            await (ask() if addresses else until(are_judged))
        told = [{"address": str(each), "reachable": is_it} for each, is_it in found.items()]
        return {"verdicts": told}

    async def echo(self, *, address, bytes=10_000):  # noqa: A002 - a word of the contract
        sent, received = os.urandom(bytes), b""
        stream = await self.node.open_stream(address, ECHO, allow_limited=True)
        async with stream:
            await stream.send(sent)
            await stream.send_eof()
            async for data in stream:
                received += data
        if received != sent:
            raise P2PError(f"sent {bytes} bytes, and {len(received)} came back")
        return {"bytes": len(received), "relayed": is_relayed(stream.connection)}

    def _to(self, address):
        peer = peer_of(address)
        return [each for each in self.node.connections if each.remote_peer == peer]


def peer_of(address):
    return Multiaddr.parse(address).peer_id


def described(connection):
    return {
        "address": str(connection.remote_addr.without_peer()),
        "dialled": connection.side is Side.DIALER,
        "relayed": is_relayed(connection),
        "limited": connection.limit is not None,
    }


def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def answer(commands, line):
    request = json.loads(line)
    number, name = request.pop("id"), request.pop("do")
    try:
        result = await getattr(commands, name)(**request)
        say({"id": number, "ok": True, "result": result})
    except FAILURES as error:
        kind = type(error).__name__
        say({"id": number, "ok": False, "error": str(error) or kind, "kind": kind})


async def echo(stream):
    async for data in stream:
        await stream.send(data)


async def main(options):
    config = NodeConfig(
        autonat=AutonatConfig(confidence=options.confidence),
        relay_server=RelayServerConfig(
            preset=options.relay, circuit_duration=options.circuit_duration
        ),
    )
    async with Node(listen=options.listen, relays=options.via, config=config) as node:
        node.handle(ECHO, echo, allow_limited=True)
        commands = Commands(node)
        addresses = [str(each) for each in node.addresses]
        listening = {"peer_id": str(node.peer_id), "addresses": addresses, "version": "isthmus"}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(commands.note)
            say({"event": "listening", **listening})
            while line := await anyio.to_thread.run_sync(sys.stdin.readline):
                tasks.start_soon(answer, commands, line)
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--backend", default="asyncio", choices=["asyncio", "trio"])
    parser.add_argument("--relay", default="off", metavar="PRESET")
    parser.add_argument("--circuit-duration", type=float, metavar="SECONDS")
    parser.add_argument("--via", action="append", default=[], metavar="RELAY")
    parser.add_argument("--confidence", type=int, default=2, metavar="N")
    given = parser.parse_args()
    anyio.run(main, given, backend=given.backend)
