"""A short-lived node for commands that call one peer; it takes no lock and listens nowhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from ...transports.core.errors import SelfDial, StoreError
from ...transports.core.keys import PrivateKey
from ...transports.core.peer_id import PeerId
from ..config import NodeConfig
from ..keystore import DataDir, explained, load_or_create
from ..node import Node
from ..run import run
from .addresses import parse_destination
from .interrupts import interruptible

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ...transports.core.interfaces import Connection
    from ..dialreport import DialReport
    from .options import StorageOptions

Result = TypeVar("Result")


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

    async def connect_and_use(node: Node) -> Result:
        # Not the loop's clock: uvloop's counts milliseconds.
        started = time.perf_counter()
        connection = await node.connect(address)
        return await use(connection, time.perf_counter() - started)

    return _run(address, connect_and_use, storage=storage, backend=backend, timeout=timeout)


def explain(address: str, *, storage: StorageOptions, backend: str, timeout: float) -> DialReport:
    """Dial `address` and return what happened; raises as `call`, but for what a dial meets."""

    async def dial(node: Node) -> DialReport:
        return await node.examine(address)

    return _run(address, dial, storage=storage, backend=backend, timeout=timeout)


def client_key(storage: StorageOptions) -> PrivateKey:
    """Return the key of the file named, else of the data directory, else a new one."""
    path = storage.identity or storage.configured
    if path is None and storage.data_dir is not None:
        path = DataDir(storage.data_dir).key_path
    if path is None:
        return PrivateKey.generate()
    with explained(path):
        is_there = path.exists()
    if is_there:
        return load_or_create(path)
    if storage.identity is not None:
        raise StoreError(f"{path}: no such key file; 'isthmus id --identity {path}' makes one")
    return PrivateKey.generate()


def _run(
    address: str,
    use: Callable[[Node], Awaitable[Result]],
    *,
    storage: StorageOptions,
    backend: str,
    timeout: float,
) -> Result:
    target = parse_destination(address)
    key = client_key(storage)
    if target.peer == PeerId.from_public_key(key.public_key):
        # The daemon of this very data directory: only under another name will it talk to us.
        key = PrivateKey.generate()
    config = NodeConfig(dial_timeout=timeout, negotiation_timeout=timeout)
    # Who is named without a place is looked for on the LAN; nothing is announced for that.
    lan = not target.addresses

    async def attempt(identity: PrivateKey) -> Result:
        # Ctrl-C cancels the work alone, so that the node stops in order.
        async with (
            interruptible() as work,
            Node(identity=identity, lan=lan, config=config) as node,
        ):
            with work:
                return await use(node)
        raise AssertionError("unreachable: whoever is interrupted raises Exit")

    async def main() -> Result:
        try:
            return await attempt(key)
        except SelfDial:
            # As above, for an address that does not say whose it is.
            return await attempt(PrivateKey.generate())

    return run(main, backend=backend)
