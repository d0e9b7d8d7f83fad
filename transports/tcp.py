"""TCP: byte streams to /ip4|ip6|dns*/tcp addresses."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from .core.addresses import AddressClass, classify_ip
from .core.errors import AddressError, DialError
from .core.interfaces import Doorkeeper, RawListener
from .core.multiaddr import Component, Multiaddr
from .readiness import notify_closing, wait_readable, wait_writable
from .resolver import Resolver
from .sockets import SocketStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from anyio.abc import ByteStream

    from .core.interfaces import Host

logger = logging.getLogger(__name__)

# As many connections may wait for `accept` as the kernel allows; it caps the number itself.
BACKLOG = 1024
# Seconds to wait after the process ran out of file descriptors.
EXHAUSTED_PAUSE = 0.1
# What the kernel may hold unsent: enough to keep it busy, little enough to choose late.
NOTSENT_LOWAT = 16_384
# Within a machine it is a record, some 30 us: with less, and BBR holds back that much now and then,
# a sender sleeps over the rest of each, while the receiver has nothing to do. With two, what is
# urgent waits longer behind bulk than that gains.
LOOPBACK_NOTSENT_LOWAT = 65_536
_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", None)
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
# Linux looks at this option also of sockets that are bound, so that a listener may get it once it
# has its port: another process that wants the port still fails, instead of sharing it.
_CAN_REUSE_LATER = sys.platform == "linux"
# What dialing from the listening port fails with where another port would do: the same peer was
# dialled from it already, somebody else has it by now, or its address does not lead there.
_PORT_UNUSABLE = {errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.EINVAL}
_FAMILIES = {
    "ip4": socket.AF_INET,
    "ip6": socket.AF_INET6,
    "dns": socket.AF_UNSPEC,
    "dns4": socket.AF_INET,
    "dns6": socket.AF_INET6,
}


_Target = tuple[str, int] | tuple[str, int, int, int]

# One for the process: what bounds its threads is what they cost, not who asks.
_RESOLVER = Resolver()


class TcpTransport:
    """TCP as a raw transport; `reuse_port` dials from the port it listens on (hole punching).

    With `only_public` that is so for public addresses alone: near ones are behind no NAT, and two
    peers of a LAN that find each other at the same moment would meet in one connection.
    """

    protocols: Sequence[str] = ("tcp",)

    def __init__(
        self,
        *,
        reuse_port: bool = False,
        only_public: bool = False,
        resolver: Resolver = _RESOLVER,
    ) -> None:
        self._reuse_port = reuse_port
        self._only_public = only_public
        self._resolver = resolver
        self._listening: list[tuple[socket.AddressFamily, str, int]] = []
        self._door: Doorkeeper | None = None

    def attach(self, host: Host) -> None:
        """Learn the owner, who may want to be asked about each connection that comes in."""
        self._door = host if isinstance(host, Doorkeeper) else None

    def can_dial(self, addr: Multiaddr) -> bool:
        """Say whether this is a TCP address, with or without /p2p at its end."""
        names = [name for name in addr.names if name != "ip6zone"]
        return (
            len(names) >= 2
            and names[0] in _FAMILIES
            and names[1] == "tcp"
            and names[2:] in ([], ["p2p"])
        )

    async def dial_raw(self, addr: Multiaddr) -> ByteStream:
        """Connect, to each address a name stands for in turn; raises DialError."""
        error: OSError | None = None
        try:
            targets = await self._resolve(addr)
        except OSError as problem:
            why = f"{addr.host} cannot be resolved: {problem.strerror}"
            raise DialError(why, phase="resolve") from problem
        except UnicodeError as problem:
            # A label that is empty or too long fails before any resolver is asked.
            why = f"{addr.host} cannot be resolved: it is no name"
            raise DialError(why, phase="resolve") from problem
        for family, target in targets:
            # From the port listened on, if wanted; from any other where that one will not do.
            for reuse_port in (True, False) if self._reuses(family, target) else (False,):
                try:
                    return await self._connect(family, target, reuse_port=reuse_port)
                except OSError as problem:
                    error = problem
                    if problem.errno not in _PORT_UNUSABLE:
                        break
        reason = (error.strerror or str(error)) if error else "the name has no address"
        raise DialError(f"cannot connect to {addr}: {reason}") from error

    def can_punch(self, addr: Multiaddr) -> bool:
        """Say whether `punch_raw` could use this address: one with an IP, if we listen beside."""
        if not self._reuse_port or not self.can_dial(addr) or addr.ip is None:
            return False
        return self._listener_for(_family_of(addr), str(addr.ip)) is not None

    async def punch_raw(self, addr: Multiaddr) -> ByteStream:
        """Connect from the port listened on, and from no other; raises DialError."""
        try:
            return await self._connect(_family_of(addr), _socket_address(addr), reuse_port=True)
        except OSError as error:
            raise DialError(f"cannot connect to {addr}: {error.strerror}") from error

    async def listen_raw(self, addr: Multiaddr) -> TcpListener:
        """Bind an address; port 0 picks a free one.

        Raises AddressError if it is no TCP address with an IP, OSError if it cannot be bound.
        """
        if not self.can_dial(addr) or addr.ip is None or addr.port is None:
            raise AddressError(f"{addr} is not an address to listen on by TCP")
        family = _FAMILIES[addr.components[-2 if addr.peer_id is None else -3].name]
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(0)
            if sys.platform != "win32":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._reuse_port and not _CAN_REUSE_LATER:
                _try_alone(family, _socket_address(addr))
                _reuse_port(sock)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(_socket_address(addr))
            sock.listen(BACKLOG)
            if self._reuse_port and _CAN_REUSE_LATER:
                _reuse_port(sock)
        except OSError as error:
            sock.close()
            raise OSError(error.errno, f"cannot listen on {addr}: {error.strerror}") from error
        host, port = sock.getsockname()[:2]
        bound = (family, host, port)
        self._listening.append(bound)
        return TcpListener(sock, self._door, on_close=lambda: self._listening.remove(bound))

    async def _resolve(self, addr: Multiaddr) -> list[tuple[socket.AddressFamily, _Target]]:
        if addr.ip is not None:
            return [(_family_of(addr), _socket_address(addr))]
        family = _FAMILIES[addr.components[0].name]
        return await self._resolver.look_up(addr.host or "", addr.port or 0, family)

    async def _connect(
        self, family: socket.AddressFamily, target: _Target, *, reuse_port: bool
    ) -> ByteStream:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(0)
            if reuse_port and (place := self._listener_for(family, str(target[0]))) is not None:
                _reuse_port(sock)
                sock.bind(place)
            code = sock.connect_ex(target)
            if code == errno.EINPROGRESS:
                # On this machine it is there at once; then a second call says so.
                code = sock.connect_ex(target)
                code = 0 if code == errno.EISCONN else code
            if code in (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY):
                await wait_writable(sock)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            return _stream(sock)
        except BaseException:
            sock.close()
            raise

    def _reuses(self, family: socket.AddressFamily, target: _Target) -> bool:
        host = target[0]
        if not self._reuse_port or self._listener_for(family, host) is None:
            return False
        kind = classify_ip(ipaddress.ip_address(host.split("%", 1)[0]))
        return not self._only_public or kind is AddressClass.PUBLIC

    def _listener_for(self, family: socket.AddressFamily, host: str) -> tuple[str, int] | None:
        """Return where to dial a host from: loopback from loopback, the rest from elsewhere."""
        is_near = _is_loopback(host)
        places = [(near, port) for kind, near, port in self._listening if kind == family]
        places.sort(key=lambda place: _is_loopback(place[0]) is not is_near)
        return places[0] if places else None


class TcpListener(RawListener):
    """A listening socket."""

    def __init__(
        self, sock: socket.socket, door: Doorkeeper | None, *, on_close: Callable[[], None]
    ) -> None:
        self._socket = sock
        self._door = door
        self._on_close = on_close
        self._closed = False
        self._address = _multiaddr(sock.getsockname())

    @property
    def addresses(self) -> tuple[Multiaddr, ...]:
        """The address bound, its port filled in."""
        return (self._address,)

    async def serve(self, handler: Callable[[ByteStream, Multiaddr], Awaitable[None]]) -> None:
        """Run `handler` in a task for every connection that comes in, until closed."""
        async with anyio.create_task_group() as tasks:
            while not self._closed:
                try:
                    sock, address = self._socket.accept()
                except BlockingIOError:
                    try:
                        await wait_readable(self._socket)
                    except anyio.ClosedResourceError:
                        break
                except OSError as error:
                    if self._closed:
                        break
                    if error.errno in _EXHAUSTED:
                        logger.warning("cannot accept on %s: %s", self._address, error.strerror)
                        await anyio.sleep(EXHAUSTED_PAUSE)
                    else:
                        # The peer gave up while it waited in the backlog; an error that comes
                        # again and again must leave the other tasks their turns.
                        await checkpoint()
                else:
                    sock.settimeout(0)
                    remote = _multiaddr(address)
                    if self._door is None or self._door.begin_upgrade(remote):
                        tasks.start_soon(self._handle, handler, _stream(sock), remote)
                    else:
                        sock.close()
                    # A flood of connections must leave the other tasks their turns.
                    await checkpoint()

    async def aclose(self) -> None:
        """Stop listening; connections that came in stay."""
        if not self._closed:
            self._closed = True
            self._on_close()
            notify_closing(self._socket)
            self._socket.close()

    async def _handle(
        self,
        handler: Callable[[ByteStream, Multiaddr], Awaitable[None]],
        stream: ByteStream,
        addr: Multiaddr,
    ) -> None:
        try:
            await handler(stream, addr)
        finally:
            if self._door is not None:
                self._door.end_upgrade(addr)


def _stream(sock: socket.socket) -> SocketStream:
    # macOS refuses options once the peer has reset the connection, which the first read will tell.
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if _TCP_NOTSENT_LOWAT is not None:
            is_local = _is_loopback(str(sock.getpeername()[0]))
            lowat = LOOPBACK_NOTSENT_LOWAT if is_local else NOTSENT_LOWAT
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, lowat)
    return SocketStream(sock)


def _socket_address(addr: Multiaddr) -> _Target:
    zone, port = addr.value_of("ip6zone"), addr.port or 0
    if zone is not None:
        return (str(addr.ip), port, 0, socket.if_nametoindex(str(zone)))
    return (str(addr.ip), port)


def _family_of(addr: Multiaddr) -> socket.AddressFamily:
    return socket.AF_INET6 if "ip6" in addr.names else socket.AF_INET


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.split("%", 1)[0]).is_loopback


def _multiaddr(address: tuple[object, ...]) -> Multiaddr:
    host, port = str(address[0]).split("%", 1)[0], address[1]
    assert isinstance(port, int)
    ip = ipaddress.ip_address(host)
    place = Component(f"ip{ip.version}", ip.packed)
    return Multiaddr((place, Component("tcp", port.to_bytes(2, "big"))))


def _try_alone(family: socket.AddressFamily, place: _Target) -> None:
    """Raise OSError if another process has this port, which the option would have us share."""
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(place)


def _reuse_port(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
