"""Multiaddrs: self-describing addresses (https://github.com/multiformats/multiaddr).

Parsing is strict, so that text, bytes and value stand for each other: whatever parses from one
form parses from the other, to an equal address.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from .errors import AddressError, RemoteProtocolError
from .multibase import multibase_decode, multibase_encode
from .peer_id import PeerId
from .varint import decode_varint, encode_varint, length_prefixed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Component", "Multiaddr"]

MAX_LENGTH = 1024
"""Bytes, and characters: a relayed WebRTC address with two certificate hashes has some 300."""

MAX_COMPONENTS = 32
"""The same address has 12."""

MAX_NAME = 253
"""Characters of a domain name (RFC 1035, without the root's dot)."""

TERMINAL = "unix"
"""The protocol that nothing can follow: its path takes the rest of the text."""

MAX_DIGEST = 64
"""Bytes of a certificate hash: SHA-512; certificates are hashed with SHA-256 today."""


@dataclass(frozen=True, slots=True)
class Component:
    """One step of an address: a protocol and its value, as bytes and as text.

    Raises AddressError when made of an unknown protocol or of data that is not a value of it.
    """

    name: str
    data: bytes = b""
    text: str = field(init=False, compare=False)
    """The value as it stands in the address's text; empty if the protocol has none."""

    def __post_init__(self) -> None:
        codec = _BY_NAME.get(self.name)
        if codec is None:
            raise AddressError(f"unknown protocol {self.name!r}")
        if codec.size not in (VARIABLE, len(self.data)):
            raise AddressError(f"a value of {self.name} has {codec.size} bytes")
        try:
            text = codec.to_text(self.data)
        except (ValueError, AddressError) as error:
            raise AddressError(f"not a value of {self.name}: {error}") from None
        object.__setattr__(self, "text", text)

    @property
    def number(self) -> int:
        """The value of a port, a prefix length or a memory address."""
        return int.from_bytes(self.data)

    def __str__(self) -> str:
        # A path brings its own slash.
        return f"/{self.name}/{self.text.removeprefix('/')}" if self.text else f"/{self.name}"

    def __bytes__(self) -> bytes:
        codec = _BY_NAME[self.name]
        value = length_prefixed(self.data) if codec.size == VARIABLE else self.data
        return codec.prefix + value


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Multiaddr:
    """An address: one component or more; equal and hashable by value.

    Raises AddressError when made of none, or of more than MAX_COMPONENTS or MAX_LENGTH.
    """

    components: tuple[Component, ...]
    names: tuple[str, ...] = field(init=False)
    """The protocols, in order."""
    _raw: bytes = field(init=False)
    _text: str = field(init=False)

    def __post_init__(self) -> None:
        components = self.components
        if not components:
            raise AddressError("an address without components")
        if len(components) > MAX_COMPONENTS:
            raise AddressError(f"an address of more than {MAX_COMPONENTS} components")
        raw = b"".join(map(bytes, components))
        text = "".join(map(str, components))
        if max(len(raw), len(text)) > MAX_LENGTH:
            raise AddressError(f"an address longer than {MAX_LENGTH}")
        object.__setattr__(self, "names", tuple(component.name for component in components))
        object.__setattr__(self, "_raw", raw)
        object.__setattr__(self, "_text", text)

    @classmethod
    def parse(cls, text: str) -> Multiaddr:
        """Parse the text form; raises AddressError that says what is wrong with it."""
        if len(text) > MAX_LENGTH:
            raise AddressError(f"an address of more than {MAX_LENGTH} characters")
        if not text.startswith("/"):
            raise AddressError(f"{text[:80]!r} is not a multiaddr: it does not start with /")
        parts = text.rstrip("/").split("/")[1:]
        components: list[Component] = []
        while parts:
            component, parts = _parse_component(text, parts)
            components.append(component)
        return cls(tuple(components))

    @classmethod
    def from_bytes(cls, data: bytes) -> Multiaddr:
        """Parse the binary form; raises AddressError, also for a protocol that is not known.

        Whatever its text would not lead back to is refused.
        """
        if len(data) > MAX_LENGTH:
            raise AddressError(f"an address of more than {MAX_LENGTH} bytes")
        components: list[Component] = []
        offset = 0
        while offset < len(data):
            code, offset = _varint(data, offset)
            codec = _BY_CODE.get(code)
            if codec is None:
                raise AddressError(f"an address with the unknown protocol {code}")
            size = codec.size
            if size == VARIABLE:
                size, offset = _varint(data, offset)
            value = bytes(data[offset : offset + size])
            if len(value) < size:
                raise AddressError("an address that ends within a component")
            offset += size
            if components and components[-1].name == TERMINAL:
                raise AddressError(f"an address that goes on after /{TERMINAL}")
            components.append(Component(codec.name, value))
        return cls(tuple(components))

    @classmethod
    def parse_many(cls, encoded: Iterable[bytes]) -> list[Multiaddr]:
        """Parse what a peer sent, leaving out the addresses that do not parse."""
        found = []
        for data in encoded:
            try:
                found.append(cls.from_bytes(data))
            except AddressError:
                continue
        return found

    @property
    def peer_id(self) -> PeerId | None:
        """The peer that the address leads to: its last /p2p, unless a relay's alone is named."""
        for component in reversed(self.components):
            if component.name == "p2p":
                return PeerId.from_bytes(component.data)
            if component.name == "p2p-circuit":
                return None
        return None

    @property
    def last_transport(self) -> str:
        """The protocol whose transport the address belongs to; "p2p" if it names only a peer.

        It is the last one that neither names a peer nor says more about the one before it.
        """
        others = [name for name in self.names if name not in ("p2p", "certhash", "http-path")]
        return others[-1] if others else "p2p"

    @property
    def host(self) -> str:
        """The IP address or name that the address starts with; empty if there is none."""
        place = self._place
        return place.text if place.name in _HOSTS else ""

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The IP address that the address starts with, without its zone."""
        place = self._place
        return _ip_of(place.data) if place.name in ("ip4", "ip6") else None

    @property
    def _place(self) -> Component:
        return self.components[self.names[0] == "ip6zone" and len(self.components) > 1]

    @property
    def port(self) -> int | None:
        """The first port."""
        for component in self.components:
            if component.name in ("tcp", "udp"):
                return component.number
        return None

    @property
    def is_process_local(self) -> bool:
        """Whether the address means nothing outside this process or machine."""
        return "memory" in self.names or "unix" in self.names

    def value_of(self, name: str) -> str | None:
        """Return the text of the first value of a protocol."""
        for component in self.components:
            if component.name == name:
                return component.text
        return None

    def with_peer(self, peer: PeerId) -> Multiaddr:
        """Return the address with /p2p/<peer> at its end, once and in place of another peer."""
        if self.components[-1] == (last := Component("p2p", bytes(peer))):
            return self
        place = self.components[:-1] if self.names[-1] == "p2p" else self.components
        return Multiaddr((*place, last))

    def without_peer(self) -> Multiaddr:
        """Return the address without the /p2p at its end; itself if it is nothing else."""
        if self.names[-1] == "p2p" and len(self.components) > 1:
            return Multiaddr(self.components[:-1])
        return self

    def encapsulate(self, other: Multiaddr) -> Multiaddr:
        """Return the two addresses, one behind the other."""
        return Multiaddr((*self.components, *other.components))

    def decapsulate_at(self, name: str) -> Multiaddr:
        """Return what stands before the last `name`; itself if there is none.

        Raises AddressError if nothing stands before it.
        """
        if name not in self.names:
            return self
        last = len(self.names) - 1 - self.names[::-1].index(name)
        return Multiaddr(self.components[:last])

    def __bytes__(self) -> bytes:
        return self._raw

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Multiaddr({self._text!r})"

    def __eq__(self, other: object) -> bool:
        return self._raw == other._raw if isinstance(other, Multiaddr) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._raw)


VARIABLE = -1
"""The size of a value that carries its length in front."""


@dataclass(frozen=True, slots=True)
class _Codec:
    """A protocol of the table: its code, its value's size in bytes, and the value's two forms."""

    name: str
    code: int
    size: int
    to_bytes: Callable[[str], bytes]
    to_text: Callable[[bytes], str]
    prefix: bytes


def _parse_component(text: str, parts: list[str]) -> tuple[Component, list[str]]:
    name = _ALIASES.get(parts[0], parts[0])
    codec = _BY_NAME.get(name)
    if codec is None:
        raise AddressError(f"{text!r}: unknown protocol {parts[0]!r}")
    if not codec.size:
        return Component(name), parts[1:]
    is_path = name == TERMINAL
    value = "/" + "/".join(parts[1:]) if is_path else "".join(parts[1:2])
    try:
        return Component(name, codec.to_bytes(value)), [] if is_path else parts[2:]
    except (ValueError, AddressError) as error:
        raise AddressError(f"{text!r}: {value!r} is not a value of {name}: {error}") from None


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    try:
        found = decode_varint(data, offset)
    except RemoteProtocolError as error:
        raise AddressError(f"an address that does not parse: {error}") from None
    if found is None:
        raise AddressError("an address that ends within a number")
    return found


def _number(bits: int) -> tuple[Callable[[str], bytes], Callable[[bytes], str]]:
    def to_bytes(text: str) -> bytes:
        number = int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else -1
        if not 0 <= number < 1 << bits:
            raise ValueError(f"not a number below 2^{bits}")
        return number.to_bytes(bits // 8)

    return to_bytes, lambda data: str(int.from_bytes(data))


def _name_of(data: bytes) -> str:
    text = data.decode()
    if not 0 < len(text) <= MAX_NAME or not text.isprintable() or set(text) & {"/", " "}:
        raise ValueError("not a name")
    return text


def _unix_of(data: bytes) -> str:
    text = data.decode()
    if not text.startswith("/") or text.endswith("/") or not text.isprintable():
        raise ValueError("not the absolute path of a file")
    return text


def _http_path(text: str) -> bytes:
    if re.search("%(?![0-9A-Fa-f]{2})", text):
        raise ValueError("a percent sign that escapes nothing")
    return unquote(text, errors="strict").encode()


@lru_cache(maxsize=1024)
def _ip_of(data: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(data)


def _http_path_of(data: bytes) -> str:
    if not data:
        raise ValueError("an empty path")
    return quote(data.decode(), safe="")


def _certhash_of(data: bytes) -> str:
    _, offset = _varint(data, 0)
    length, offset = _varint(data, offset)
    if not 0 < length == len(data) - offset <= MAX_DIGEST:
        raise ValueError("not a multihash")
    return multibase_encode(data, "u")


def _ip4(text: str) -> bytes:
    return ipaddress.IPv4Address(text).packed


def _ip6(text: str) -> bytes:
    if "%" in text:
        raise ValueError("a zone goes before, as /ip6zone")
    return ipaddress.IPv6Address(text).packed


def _ip6_of(data: bytes) -> str:
    # In one form on every version of Python.
    ip = ipaddress.IPv6Address(data)
    return str(ip) if ip.ipv4_mapped is None else f"::ffff:{ip.ipv4_mapped}"


def _table() -> tuple[_Codec, ...]:
    ip4 = (_ip4, lambda data: str(ipaddress.IPv4Address(data)))
    ip6 = (_ip6, _ip6_of)
    name = (str.encode, _name_of)
    nothing = (lambda _: b"", lambda _: "")
    peer = (lambda text: bytes(PeerId.parse(text)), lambda data: str(PeerId.from_bytes(data)))
    rows: tuple[
        tuple[str, int, int, tuple[Callable[[str], bytes], Callable[[bytes], str]]], ...
    ] = (
        ("ip4", 4, 4, ip4),
        ("tcp", 6, 2, _number(16)),
        ("ip6", 41, 16, ip6),
        ("ip6zone", 42, VARIABLE, name),
        ("ipcidr", 43, 1, _number(8)),
        ("dns", 53, VARIABLE, name),
        ("dns4", 54, VARIABLE, name),
        ("dns6", 55, VARIABLE, name),
        ("dnsaddr", 56, VARIABLE, name),
        ("udp", 273, 2, _number(16)),
        ("webrtc-direct", 280, 0, nothing),
        ("webrtc", 281, 0, nothing),
        ("p2p-circuit", 290, 0, nothing),
        ("unix", 400, VARIABLE, (str.encode, _unix_of)),
        ("p2p", 421, VARIABLE, peer),
        ("https", 443, 0, nothing),
        ("tls", 448, 0, nothing),
        ("sni", 449, VARIABLE, name),
        ("noise", 454, 0, nothing),
        ("quic", 460, 0, nothing),
        ("quic-v1", 461, 0, nothing),
        ("webtransport", 465, 0, nothing),
        ("certhash", 466, VARIABLE, (multibase_decode, _certhash_of)),
        ("ws", 477, 0, nothing),
        ("wss", 478, 0, nothing),
        ("http", 480, 0, nothing),
        ("http-path", 481, VARIABLE, (_http_path, _http_path_of)),
        # Eight bytes, as go and rust have it; never put on the wire.
        ("memory", 777, 8, _number(64)),
    )
    return tuple(
        _Codec(name, code, size, *codec, encode_varint(code)) for name, code, size, codec in rows
    )


_ALIASES = {"ipfs": "p2p"}
_HOSTS = {"ip4", "ip6", "dns", "dns4", "dns6", "dnsaddr"}
_BY_NAME = {codec.name: codec for codec in _table()}
_BY_CODE = {codec.code: codec for codec in _BY_NAME.values()}
