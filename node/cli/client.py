"""A short-lived node for commands that call one peer; it takes no lock and listens nowhere."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, TypeVar

import anyio
import click

from ...transports.core.errors import AddressError, SelfDial, unwrap_group
from ...transports.core.keys import PrivateKey
from ...transports.core.peer_id import PeerId
from ..config import NodeConfig
from ..dialing import parse_target
from ..keystore import DataDir, load_or_create
from ..node import Node
from ..printable import printable
from ..run import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable

    from ...transports.core.interfaces import Connection
    from ..dialing import Target
    from .options import StorageOptions

Result = TypeVar("Result")

INTERRUPTED = 130
"""The exit code of a program that Ctrl-C ended: 128 + SIGINT."""

EXAMPLE_ADDRESS = "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooW..."


def call(
    address: str,
    use: Callable[[Connection, float], Awaitable[Result]],
    *,
    storage: StorageOptions,
    backend: str,
    timeout: float,
) -> Result:
    """Connect to `address` and return what `use(connection, seconds to connect)` does.

    Raises AddressError for an address that does not parse, StoreError for a key that cannot be
    used, what `Node.connect` raises, and click's Exit after Ctrl-C.
    """
    target = _parse(address)
    key = client_key(storage)
    if target.peer == PeerId.from_public_key(key.public_key):
        # The daemon of this very data directory: only under another name will it talk to us.
        key = PrivateKey.generate()
    config = NodeConfig(dial_timeout=timeout, negotiation_timeout=timeout)
    # Who is named without a place is looked for on the LAN; nothing is announced for that.
    lan = not target.addresses
    return run(_connected(address, use, key, config, lan=lan), backend=backend)


def client_key(storage: StorageOptions) -> PrivateKey:
    """Return the key of the file named, else of the data directory, else a new one."""
    if storage.identity is not None:
        if not storage.identity.exists():
            raise FileNotFoundError(2, "no such key file", str(storage.identity))
        return load_or_create(storage.identity)
    if storage.data_dir is not None:
        path = DataDir(storage.data_dir).key_path
        if path.exists():
            return load_or_create(path)
    return PrivateKey.generate()


def _parse(address: str) -> Target:
    shown = printable(address)
    try:
        target = parse_target(address)
    except AddressError as error:
        why = str(error) if address.startswith("/") else f"{shown!r} is no multiaddr"
        raise AddressError(f"{why}; an address looks like {EXAMPLE_ADDRESS}") from error
    return target


def _connected(
    address: str,
    use: Callable[[Connection, float], Awaitable[Result]],
    key: PrivateKey,
    config: NodeConfig,
    *,
    lan: bool,
) -> Callable[[], Awaitable[Result]]:
    async def attempt(identity: PrivateKey) -> Result:
        async with Node(identity=identity, lan=lan, config=config) as node:

            async def body() -> Result:
                # Not the loop's clock: uvloop's counts milliseconds.
                started = time.perf_counter()
                connection = await node.connect(address)
                return await use(connection, time.perf_counter() - started)

            return await _until_interrupted(body)

    async def main() -> Result:
        try:
            return await attempt(key)
        except SelfDial:
            # As above, for an address that does not say whose it is.
            return await attempt(PrivateKey.generate())

    return main


async def _until_interrupted(body: Callable[[], Awaitable[Result]]) -> Result:
    """Return what `body` does; Ctrl-C cancels that alone, so that the node stops in order."""
    with unwrap_group(), anyio.open_signal_receiver(signal.SIGINT) as signals:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_on, signals, tasks.cancel_scope)
            result = await body()
            tasks.cancel_scope.cancel()
            return result
    raise click.exceptions.Exit(INTERRUPTED)


async def _cancel_on(signals: AsyncIterable[signal.Signals], scope: anyio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()
        return
