"""Probes: what kind of NAT is this, and does hole punching get through it?

Everything runs in the calling process, on sockets that live in the hosts' namespaces.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .host import Host

Address = tuple[str, int]

MDNS_GROUP: Address = ("224.0.0.251", 5353)
_TOKEN = 8
"""Bytes; enough that a stray datagram is never taken for ours."""
_LOOK = 0.02
"""Seconds of one select() while TCP punching goes on."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What RFC 4787 calls the behaviour of a NAT, as seen from two public addresses."""

    mapping: str
    """endpoint-independent, address-dependent or blocked."""
    filtering: str
    """endpoint-independent, address, address+port or blocked."""
    external: Address | None = None
    keeps_port: bool | None = None


@dataclass(frozen=True, slots=True)
class TcpPunch:
    """How TCP hole punching went."""

    seconds: float | None
    """Until bytes had gone both ways; None if they never did."""
    attempts: int
    errors: tuple[str, ...]


def mapped_address(
    sender: socket.socket, server: socket.socket, *, timeout: float = 0.5
) -> Address | None:
    """Return the source address that a server socket sees of a UDP socket, or None.

    Asks twice, for the first datagram may be lost; timeout is the seconds for each.
    """
    for _ in range(2):
        if source := _pass_token(sender, server.getsockname(), server, timeout):
            return source
    return None


def echoes(client: socket.socket, server: socket.socket, *, timeout: float = 0.5) -> bool:
    """Tell whether a datagram goes from one UDP socket to another and an answer comes back."""
    source = _pass_token(client, server.getsockname(), server, timeout)
    return source is not None and reaches(server, source, client, timeout=timeout)


def reaches(
    sender: socket.socket, target: Address, receiver: socket.socket, *, timeout: float = 0.3
) -> bool:
    """Tell whether a datagram to an address, which may be a group's, comes out at a socket."""
    return _pass_token(sender, target, receiver, timeout) is not None


def multicast_reaches(sender: Host, receiver: Host, group: Address = MDNS_GROUP) -> bool:
    """Tell whether a multicast datagram of one host arrives at another."""
    with sender.socket() as source, receiver.enter():
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sink:
            sink.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sink.bind(("", group[1]))
            membership = socket.inet_aton(group[0]) + socket.inet_aton(receiver.ip)
            sink.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            interface = socket.inet_aton(sender.ip)
            source.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
            return reaches(source, group, sink, timeout=0.5)


def classify(client: Host, first: Host, second: Host) -> Behaviour:
    """Classify what is before a client, by two public hosts with addresses of their own."""
    with ExitStack() as stack:
        inside, at_first, at_second, other_port, stranger = (
            stack.enter_context(host.socket()) for host in (client, first, second, first, second)
        )
        external = mapped_address(inside, at_first)
        if external is None:
            return Behaviour("blocked", "blocked")
        # Filtering first: the client has sent nothing yet to the second host or the other port.
        if reaches(stranger, external, inside):
            filtering = "endpoint-independent"
        elif reaches(other_port, external, inside):
            filtering = "address"
        else:
            filtering = "address+port"
        is_same = mapped_address(inside, at_second) == external
        return Behaviour(
            "endpoint-independent" if is_same else "address-dependent",
            filtering,
            external,
            external[1] == inside.getsockname()[1],
        )


def udp_punch(
    a: Host, b: Host, server: Host, *, rounds: int = 30, interval: float = 0.05
) -> float | None:
    """Punch a UDP hole: both ends learn their address from the server, swap it, and send.

    Answers follow the observed source, as ICE does with peer-reflexive candidates. Returns the
    seconds until both ends knew that traffic goes both ways, or None.
    """
    with ExitStack() as stack:
        ours, theirs, meeting = (stack.enter_context(host.socket()) for host in (a, b, server))
        mapped = mapped_address(ours, meeting), mapped_address(theirs, meeting)
        if mapped[0] is None or mapped[1] is None:
            return None
        targets = {ours: {mapped[1]}, theirs: {mapped[0]}}
        heard: set[socket.socket] = set()
        done: set[socket.socket] = set()
        start = time.monotonic()
        for _ in range(rounds):
            for end, addresses in targets.items():
                for address in addresses:
                    with suppress(OSError):  # refused: a later round may pass
                        end.sendto(b"seen" if end in heard else b"hello", address)
            _listen(targets, heard, done, time.monotonic() + interval)
            if len(done) == 2:
                return time.monotonic() - start
    return None


def tcp_punch(
    a: Host,
    b: Host,
    server: Host,
    *,
    timeout: float = 3.0,
    skew: float = 0.0,
    retry: float = 0.2,
    listen: bool = True,
) -> TcpPunch:
    """Punch a TCP hole from the ports whose mapping the server saw; b starts `skew` s after a.

    Both ends connect, again and again, to the other's mapped address, from the mapped port. With
    listen they also listen there, so that a SYN which meets no SYN of ours is welcome; without,
    only a simultaneous open succeeds (RFC 9293, section 3.5).
    """
    with ExitStack() as stack:
        port_a, mapped_a = _tcp_mapped(a, server, stack)
        port_b, mapped_b = _tcp_mapped(b, server, stack)
        start = time.monotonic()
        sides = (
            _TcpSide(a, port_a, mapped_b, start, stack),
            _TcpSide(b, port_b, mapped_a, start + skew, stack),
        )
        if listen:
            for side in sides:
                side.listen()
        seconds = None
        while seconds is None and time.monotonic() < start + timeout:
            for side in sides:
                side.dial(retry)
            _look(sides, retry)
            if any(_talk(x, y) for x in sides[0].connected for y in sides[1].connected):
                seconds = time.monotonic() - start
        attempts = sum(side.attempts for side in sides)
        return TcpPunch(seconds, attempts, tuple(sides[0].errors + sides[1].errors))


@dataclass(slots=True, eq=False)
class _TcpSide:
    """One end of TCP hole punching; its sockets close with the stack."""

    host: Host
    port: int
    target: Address
    due: float
    stack: ExitStack
    listener: socket.socket | None = None
    attempt: socket.socket | None = None
    attempts: int = 0
    connected: list[socket.socket] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def listen(self) -> None:
        """Also take connections on the mapped port."""
        self.listener = self._socket()
        self.listener.listen()

    def dial(self, retry: float) -> None:
        """Start to connect, if it is time and no attempt is under way or has succeeded."""
        now = time.monotonic()
        if self.attempt is not None or now < self.due:
            return
        attempt = self._socket()
        self.attempts += 1
        code = attempt.connect_ex(self.target)
        if code in (0, errno.EINPROGRESS):
            self.attempt = attempt
        else:
            self.errors.append(errno.errorcode[code])
            self.due = now + retry

    @property
    def connecting(self) -> socket.socket | None:
        """The attempt whose outcome is not known yet."""
        return None if self.attempt in self.connected else self.attempt

    def settle(self, retry: float) -> None:
        """Take the outcome of the attempt."""
        if self.attempt is None:
            return
        code = self.attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code:
            self.connected.append(self.attempt)
            return
        self.errors.append(errno.errorcode[code])
        self.attempt.close()
        self.attempt = None
        self.due = time.monotonic() + retry

    def accept(self) -> None:
        """Take a connection from the listener."""
        if self.listener is not None:
            self.connected.append(self.stack.enter_context(self.listener.accept()[0]))

    def _socket(self) -> socket.socket:
        made = self.stack.enter_context(self.host.socket(socket.SOCK_STREAM, self.port, reuse=True))
        made.setblocking(False)
        return made


def _look(sides: tuple[_TcpSide, _TcpSide], retry: float) -> None:
    """Wait for a moment, accept what came, and settle what was decided."""
    listening = {side.listener: side for side in sides if side.listener is not None}
    connecting = {side.connecting: side for side in sides if side.connecting is not None}
    readable, writable, _ = select.select(list(listening), list(connecting), [], _LOOK)
    for ready in readable:
        listening[ready].accept()
    for ready in writable:
        connecting[ready].settle(retry)


def _listen(
    targets: dict[socket.socket, set[Address]],
    heard: set[socket.socket],
    done: set[socket.socket],
    deadline: float,
) -> None:
    """Take UDP answers until the deadline, or until both ends are done."""
    while len(done) < 2 and (left := deadline - time.monotonic()) > 0:
        for end in select.select(list(targets), [], [], left)[0]:
            with suppress(OSError):  # an ICMP error of an earlier datagram
                data, source = end.recvfrom(64)
                targets[end].add(source)
                heard.add(end)
                if data == b"seen":
                    done.add(end)


def _pass_token(
    sender: socket.socket, target: Address, receiver: socket.socket, timeout: float
) -> Address | None:
    """Send one datagram and return the source that the receiver sees; leftovers do not count."""
    token = os.urandom(_TOKEN)
    deadline = time.monotonic() + timeout
    with suppress(OSError):  # no route, or refused: it does not arrive either
        sender.sendto(token, target)
    while (left := deadline - time.monotonic()) > 0:
        receiver.settimeout(left)
        with suppress(OSError):  # time is up, or an ICMP error of an earlier datagram
            data, source = receiver.recvfrom(64)
            if data == token:
                return str(source[0]), int(source[1])
    return None


def _tcp_mapped(host: Host, server: Host, stack: ExitStack) -> tuple[int, Address]:
    """Return the local port and the mapped address of a TCP connection that stays open."""
    with server.socket(socket.SOCK_STREAM) as listener:
        listener.listen()
        listener.settimeout(2)
        client = stack.enter_context(host.socket(socket.SOCK_STREAM, reuse=True))
        client.settimeout(2)
        client.connect(listener.getsockname())
        peer, source = listener.accept()
        stack.enter_context(peer)
    return int(client.getsockname()[1]), (str(source[0]), int(source[1]))


def _talk(x: socket.socket, y: socket.socket) -> bool:
    """Tell whether these are the two ends of one connection."""
    for one, other in ((x, y), (y, x)):
        token = os.urandom(_TOKEN)
        one.settimeout(0.5)
        other.settimeout(0.5)
        try:
            one.sendall(token)
            if other.recv(_TOKEN) != token:
                return False
        except OSError:
            return False
    return True
