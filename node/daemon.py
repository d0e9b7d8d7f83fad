"""The daemon behind `isthmus run`: one node on one data directory, until a signal stops it.

It prints nothing and parses nothing; a `Reporter` is told what there is to say.
"""

from __future__ import annotations

import errno
import os
import secrets
import signal
import socket
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import anyio

from ..relay.circuit.limits import RelayServerConfig
from ..transports.core.errors import AddressError, ConfigError, StoreError, unwrap_group
from ..transports.core.interfaces import Priority
from ..transports.core.keys import PrivateKey
from ..transports.core.multiaddr import Multiaddr
from .api import SOCKET_FILE
from .config import NodeConfig
from .descriptors import make_room
from .interfaces import interface_addresses
from .keystore import DataDir, explained, load_or_create
from .node import Node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from pathlib import Path

    from ..transports.core.interfaces import Stream
    from ..transports.core.peer_id import PeerId
    from .events import EventReader, NodeEvent

ECHO_PROTOCOL = "/echo/1.0.0"

EXAMPLE_LISTEN = "/ip4/0.0.0.0/tcp/4001"

EXAMPLE_RELAY = "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooW..."

PORT_FILE = "port"

PORTS = range(20_000, 32_768)
"""Where a port of one's own is chosen: below those that systems give to outgoing connections
(Linux from 32768, others from 49152), which a restarted node might find taken."""

PORT_ATTEMPTS = 64
"""Ports that are tried; that so many random ones are all taken happens on no sane machine."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_CANNOT_BIND = {
    errno.EADDRINUSE: "stop the program that uses this port, or choose another with --listen",
    errno.EACCES: "choose a port above 1023 with --listen",
    errno.EADDRNOTAVAIL: "no interface of this machine has this address; see --listen",
    errno.EAFNOSUPPORT: "this machine has no addresses of this kind; see --listen",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonOptions:
    """What `serve` is to do."""

    listen: tuple[Multiaddr, ...] = ()
    """Where to listen; nothing stands for every address of this machine, on one kept port."""

    data_dir: Path | None = None
    """Holds the key, the port, the lock and the stores. `isthmus run` has a default for it; None
    keeps nothing on disk and takes no lock."""

    identity: Path | None = None
    """A key file to use instead of the data directory's, made if it is not there."""

    ephemeral: bool = False
    """Keep nothing on disk and take no lock, whatever `data_dir` says."""

    transports: tuple[str, ...] | None = None
    """Names that packages have registered for transports; None stands for TCP and WebSocket."""

    echo: bool | None = None
    """Serve /echo/1.0.0; None means: if every address listened on is a loopback one."""

    lan: bool | None = None
    """Find and connect to the peers of this LAN; None: unless all addresses are loopback ones."""

    serve_control: bool = True
    """Have a control API, by which `isthmus status` and other commands ask this node."""

    control: Path | None = None
    """The Unix socket of the control API; None: control.sock in the data directory, if any."""

    config: NodeConfig = field(default_factory=lambda: NodeConfig(dial_found=True))
    """The settings of the node."""

    def __post_init__(self) -> None:
        if self.ephemeral:
            object.__setattr__(self, "data_dir", None)

    @property
    def control_socket(self) -> Path | None:
        """Where the control API is served; None if nowhere."""
        if not self.serve_control:
            return None
        if self.control is None and self.data_dir is not None:
            return self.data_dir / SOCKET_FILE
        return self.control


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A node that has just begun to listen; `key_path` is None if its key is on no disk."""

    peer_id: PeerId
    addresses: tuple[Multiaddr, ...]
    protocols: tuple[str, ...]
    key_path: Path | None
    is_new_key: bool


class Reporter(Protocol):
    """Who is told what happens; what a method raises stops the daemon."""

    def started(self, started: Started) -> None:
        """Take note that the node listens."""

    def event(self, event: NodeEvent) -> None:
        """Take note of an event; the first one is Listening."""

    def notice(self, text: str) -> None:
        """Take note, in one line, of something that is not as a user may expect."""


async def serve(options: DaemonOptions, reporter: Reporter) -> None:
    """Run a node until SIGINT or SIGTERM, then stop it cleanly and return.

    Runs in the main thread, on asyncio or trio. Raises StoreError for a key, port or lock file
    that cannot be used, ConfigError or AddressError for an address that cannot be listened on.
    """
    with (
        unwrap_group(),
        anyio.open_signal_receiver(*STOP_SIGNALS) as signals,
        _locked(options.data_dir),
    ):
        identity = _identity(options)
        listening = _listening(options, reporter)
        node = _node(options, identity.key, listening.addresses)
        if (too_few := make_room(node.config.limits)) is not None:
            reporter.notice(too_few)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_report, node.events(), reporter)
            with _explained(listening):
                await _run(node, identity, reporter, signals, options.control_socket)


@asynccontextmanager
async def short_lived(options: DaemonOptions) -> AsyncIterator[Node]:
    """Run a node as `serve` would, but take no lock, write nothing and serve nobody.

    It has the key and the port of the data directory, where they are; if another program has that
    port, both are new, since it may be this very node that runs already. Raises as `serve`.
    """
    directory, path, kept = options.data_dir, options.identity, None
    if directory is not None:
        path = path or DataDir(directory).key_path
        with explained(directory / PORT_FILE):
            kept = _port_in(_read_port(directory / PORT_FILE) or b"")
    wildcards = _wildcards()
    is_free = kept is None or all(_is_free(version, kept) for version in wildcards)
    key = PrivateKey.generate()
    if path is not None and (is_free or options.listen):
        with explained(path):
            is_there = path.exists()
        key = load_or_create(path) if is_there else key
    port = kept if kept is not None and is_free else _free_port(wildcards)
    listening = _Listening(options.listen or _everywhere(wildcards, port))
    config = replace(
        options.config,
        serve_perf=False,
        dial_found=False,
        relay_server=RelayServerConfig(),
        dht=replace(options.config.dht, provide=()),
    )
    quiet = replace(options, data_dir=None, echo=False, config=config)
    node = _node(quiet, key, listening.addresses)
    with unwrap_group(), _explained(listening):
        async with node:
            yield node


async def echo(stream: Stream) -> None:
    """Send back what comes, to the end."""
    async for data in stream:
        await stream.send(data)


@dataclass(frozen=True, slots=True)
class _Identity:
    key: PrivateKey
    path: Path | None
    is_new: bool


@dataclass(frozen=True, slots=True)
class _Listening:
    """Addresses, and the file that their port comes from, if one does."""

    addresses: tuple[Multiaddr, ...]
    port_path: Path | None = None


def _locked(path: Path | None) -> AbstractContextManager[object]:
    return nullcontext() if path is None else DataDir(path)


def _identity(options: DaemonOptions) -> _Identity:
    path = options.identity
    if path is None and options.data_dir is not None:
        path = DataDir(options.data_dir).key_path
    if path is None:
        return _Identity(PrivateKey.generate(), None, is_new=True)
    is_new = not path.exists()
    return _Identity(load_or_create(path), path, is_new)


def _listening(options: DaemonOptions, reporter: Reporter) -> _Listening:
    if options.listen:
        return _Listening(tuple(dict.fromkeys(options.listen)))
    wildcards = _wildcards()
    if 6 not in wildcards:
        reporter.notice("this machine has no IPv6: listening on IPv4 only")
    if options.data_dir is None:
        port, path = _free_port(wildcards), None
    else:
        path = options.data_dir / PORT_FILE
        port = _kept_port(path, wildcards)
    return _Listening(_everywhere(wildcards, port), path)


def _wildcards() -> dict[int, str]:
    """Return what stands for every address of this machine, by the version of IP."""
    return {4: "/ip4/0.0.0.0"} | ({6: "/ip6/::"} if _has_ipv6() else {})


def _everywhere(wildcards: dict[int, str], port: int) -> tuple[Multiaddr, ...]:
    return tuple(Multiaddr.parse(f"{each}/tcp/{port}") for each in wildcards.values())


def _node(options: DaemonOptions, key: PrivateKey, listen: Sequence[Multiaddr]) -> Node:
    is_private = all(each.ip is not None and each.ip.is_loopback for each in listen)
    serve_echo = is_private if options.echo is None else options.echo
    config = options.config
    if config.serve_perf is None:
        config = replace(config, serve_perf=is_private)
    lan = not is_private if options.lan is None else options.lan
    node = Node(
        identity=key,
        listen=listen,
        lan=lan,
        data_dir=options.data_dir,
        transports=options.transports,
        config=config,
    )
    if serve_echo:
        node.handle(ECHO_PROTOCOL, echo, priority=Priority.MEDIUM)
    return node


def _started(node: Node, identity: _Identity) -> Started:
    return Started(
        peer_id=node.peer_id,
        addresses=node.addresses,
        protocols=node.protocols,
        key_path=identity.path,
        is_new_key=identity.is_new,
    )


async def _run(
    node: Node,
    identity: _Identity,
    reporter: Reporter,
    signals: AsyncIterator[signal.Signals],
    control: Path | None,
) -> None:
    # The node is left first, so that who reads its events sees the last ones.
    async with _control(control, node) as open_control, node:
        open_control()
        reporter.started(_started(node, identity))
        await anext(signals)


def _control(path: Path | None, node: Node) -> AbstractAsyncContextManager[Callable[[], None]]:
    if path is None:
        return nullcontext(lambda: None)
    # Loaded only where it is used: it brings h11.
    from .api.driver import serving

    return serving(path, node)


async def _report(reader: EventReader, reporter: Reporter) -> None:
    async for event in reader:
        reporter.event(event)


@contextmanager
def _explained(listening: _Listening) -> Iterator[None]:
    """Add what to do to the error of an address that cannot be bound."""
    try:
        yield
    except AddressError as error:
        raise AddressError(f"{error}; one to listen on looks like {EXAMPLE_LISTEN}") from error
    except OSError as error:
        advice = _CANNOT_BIND.get(error.errno or 0)
        if advice is None:
            raise
        if listening.port_path is not None and error.errno == errno.EADDRINUSE:
            advice += f", or remove {listening.port_path} to be given a new one"
        raise ConfigError(f"{error.strerror}: {advice}") from error


def _has_ipv6() -> bool:
    if not socket.has_ipv6 or not interface_addresses(6):
        return False
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def _kept_port(path: Path, versions: Sequence[int] | dict[int, str]) -> int:
    """Return the port in the file, or choose one and keep it there."""
    with explained(path):
        text = _read_port(path)
    if text is None:
        port = _free_port(versions)
        with explained(path):
            _keep(path, port)
        return port
    if (found := _port_in(text)) is not None:
        return found
    raise StoreError(f"{path}: not a port number; remove the file to be given a new one")


def _port_in(text: bytes) -> int | None:
    return int(text) if text.strip().isdigit() and 0 < int(text) < 65_536 else None


def _read_port(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except FileNotFoundError:
        return None


def _keep(path: Path, port: int) -> None:
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        part.write_bytes(b"%d\n" % port)
        os.replace(part, path)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def _free_port(versions: Sequence[int] | dict[int, str]) -> int:
    for _ in range(PORT_ATTEMPTS):
        port = secrets.choice(PORTS)
        if all(_is_free(version, port) for version in versions):
            return port
    raise ConfigError(
        f"no free port found between {PORTS.start} and {PORTS.stop - 1}; name one with --listen"
    )


def _is_free(version: int, port: int) -> bool:
    family, host = (socket.AF_INET, "0.0.0.0") if version == 4 else (socket.AF_INET6, "::")
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
