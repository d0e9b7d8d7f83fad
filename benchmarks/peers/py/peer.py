# mypy: ignore-errors
"""A py-libp2p peer that takes commands: a JSON object a line on stdin, an answer a line on stdout.

python peer.py [--listen MULTIADDR]... [--relay LIMITS]

It runs in an environment of its own, where isthmus is not installed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import trio
from bench import BENCHES
from commands import COMMANDS
from libp2p import create_yamux_muxer_option, generate_new_ed25519_identity, new_host
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519_key_pair
from libp2p.perf import PerfService
from libp2p.rcmgr.connection_limits import ConnectionLimits
from libp2p.rcmgr.manager import ResourceLimits, ResourceManager
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from multiaddr import Multiaddr
from protocols import serve
from reach import Reach, census, connections, upgraded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from libp2p.abc import IHost

DEFAULT_LISTEN = "/ip4/127.0.0.1/tcp/0"
MAX_LINE = 1 << 20
"""Bytes of one command: a longer line is no command of ours."""


def build_host(listen: list[Multiaddr]) -> IHost:
    """Return a host that speaks TCP, Noise and Yamux, and nothing else."""
    keys = generate_new_ed25519_identity()
    noise = NoiseTransport(keys, noise_privkey=new_x25519_key_pair().private_key)
    # py-libp2p takes 10 connections a second from one peer and opens a circuit breaker after five
    # failures; the dial bench makes many and the tests fail on purpose.
    limits = ResourceManager(
        limits=ResourceLimits(max_connections=4096, max_memory_mb=2048, max_streams=20_000),
        connection_limits=ConnectionLimits(),
        enable_rate_limiting=False,
        enable_circuit_breaker=False,
        enable_graceful_degradation=False,
    )
    return new_host(
        key_pair=keys,
        sec_opt={NOISE: noise},
        muxer_opt=create_yamux_muxer_option(),
        listen_addrs=listen,
        resource_manager=limits,
    )


def reach_commands(host: IHost) -> dict[str, Any]:
    """Return the commands that have to do with relays."""
    return {
        "reserve": host.reach.reserve,
        "reservations": host.reach.reservations,
        "connections": connections,
        "upgraded": upgraded,
        "census": census,
    }


def say(message: dict[str, Any]) -> None:
    """Write one line of JSON."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def root_of(error: BaseException) -> BaseException:
    """Return the error behind wrappers and groups."""
    while True:
        # A group of the standard library, or py-libp2p's MultiError, which keeps them as arguments.
        inner = getattr(error, "exceptions", None) or getattr(error, "errors", None)
        if inner:
            error = inner[0]
        elif error.__cause__ is not None:
            error = error.__cause__
        else:
            return error


async def answer(host: IHost, line: bytes) -> None:
    """Run one command and say how it ended."""
    options = json.loads(line)
    number, name = options.pop("id"), options.pop("do")
    command = COMMANDS.get(name) or BENCHES.get(name) or reach_commands(host).get(name)
    if command is None:
        say({"id": number, "ok": False, "error": f"no command {name}", "kind": "UnknownCommand"})
        return
    try:
        result = await command(host, **options)
    except Exception as error:  # noqa: BLE001  # boundary: the failure is the answer
        root = root_of(error)
        kind = getattr(root, "kind", None) or type(root).__name__
        text = str(error) if root is error else f"{error}: {root}"
        say({"id": number, "ok": False, "error": text, "kind": kind})
    else:
        say({"id": number, "ok": True, "result": result})


async def lines() -> AsyncIterator[bytes]:
    """Yield the lines of stdin until its end."""
    pending = b""
    async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
        async for chunk in stdin:
            *complete, pending = (pending + chunk).split(b"\n")
            if len(pending) > MAX_LINE:
                raise ValueError(f"a command longer than {MAX_LINE} bytes")
            for line in complete:
                yield line


async def main() -> None:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", action="append", metavar="MULTIADDR")
    parser.add_argument("--relay", metavar="LIMITS")
    options = parser.parse_args()
    listen = [Multiaddr(text) for text in options.listen or [DEFAULT_LISTEN]]
    host = build_host(listen)
    host.reach = Reach(host, options.relay)
    async with (
        host.run(listen_addrs=listen),
        host.reach.run(),
        trio.open_nursery() as nursery,
    ):
        serve(host)
        await PerfService(host).start()
        say(
            {
                "event": "listening",
                "peer_id": str(host.get_id()),
                "addresses": [str(address) for address in host.get_addrs()],
                "version": f"py-libp2p {version('libp2p')}",
            }
        )
        async for line in lines():
            nursery.start_soon(answer, host, line)
        # Closing a host politely takes py-libp2p seconds, and nobody listens any more.
        os._exit(0)


if __name__ == "__main__":
    # Its log goes to stderr by default and to files if the environment says so: neither is wanted.
    logging.disable(logging.CRITICAL)
    trio.run(main)
