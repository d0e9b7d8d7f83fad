"""Multiaddrs: self-describing addresses (https://github.com/multiformats/multiaddr)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from .errors import AddressError, RemoteProtocolError
from .multibase import multibase_decode, multibase_encode
from .peer_id import PeerId
from .varint import decode_varint, encode_varint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Component", "Multiaddr"]

# A relayed WebRTC address with two certificate hashes has some 300 bytes and 12 components.
MAX_LENGTH = 1024
MAX_COMPONENTS = 32


@dataclass(frozen=True, slots=True)
class _Codec:
    """A protocol of the table: its code, and its value's size (0: none, -1: length-prefixed)."""

    name: str
    code: int
    size: int
    to_bytes: Callable[[str], bytes]
    to_text: Callable[[bytes], str]


@dataclass(frozen=True, slots=True)
class Component:
    """One step of an address: a protocol and its value, as bytes and as text."""

    name: str
    data: bytes = b""

    @property
    def text(self) -> str:
        """The value as it stands in the address's text; empty if there is none."""
        codec = _BY_NAME[self.name]
        return codec.to_text(self.data) if codec.size else ""

    @property
    def number(self) -> int:
        """The value of a port, a prefix length or a memory address."""
        return int.from_bytes(self.data)

    def __str__(self) -> str:
        return f"/{self.name}/{self.text}" if _BY_NAME[self.name].size else f"/{self.name}"

    def __bytes__(self) -> bytes:
        codec = _BY_NAME[self.name]
        prefix = encode_varint(len(self.data)) if codec.size < 0 else b""
        return encode_varint(codec.code) + prefix + self.data


class Multiaddr:
    """An address, as a sequence of components; equal and hashable by value."""

    __slots__ = ("__dict__", "components")

    def __init__(self, components: Iterable[Component]) -> None:
        self.components = tuple(components)
        if not self.components:
            raise AddressError("an address without components")
        if len(self.components) > MAX_COMPONENTS:
            raise AddressError(f"an address of more than {MAX_COMPONENTS} components")

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
            name = _ALIASES.get(parts[0], parts[0])
            codec = _BY_NAME.get(name)
            if codec is None:
                raise AddressError(f"{text!r}: unknown protocol {parts[0]!r}")
            if not codec.size:
                parts = parts[1:]
                components.append(Component(name))
                continue
            value = "/" + "/".join(parts[1:]) if name == "unix" else "".join(parts[1:2])
            if not value.strip("/"):
                raise AddressError(f"{text!r}: {name} lacks its value")
            parts = [] if name == "unix" else parts[2:]
            try:
                components.append(Component(name, codec.to_bytes(value)))
            except (ValueError, AddressError) as error:
                raise AddressError(
                    f"{text!r}: {value!r} is not a value of {name}: {error}"
                ) from None
        return cls(components)

    @classmethod
    def from_bytes(cls, data: bytes) -> Multiaddr:
        """Parse the binary form; raises AddressError, also for a protocol that is not known."""
        if len(data) > MAX_LENGTH:
            raise AddressError(f"an address of more than {MAX_LENGTH} bytes")
        components: list[Component] = []
        offset = 0
        try:
            while offset < len(data):
                code, offset = _varint(data, offset)
                codec = _BY_CODE.get(code)
                if codec is None:
                    raise AddressError(f"an address with the unknown protocol {code}")
                size = codec.size
                if size < 0:
                    size, offset = _varint(data, offset)
                value = data[offset : offset + size]
                if len(value) < size:
                    raise AddressError("an address that ends within a component")
                if codec.size:
                    codec.to_text(value)
                offset += size
                components.append(Component(codec.name, value))
        except (ValueError, RemoteProtocolError) as error:
            raise AddressError(f"an address that does not parse: {error}") from None
        return cls(components)

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

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The protocols, in order."""
        return tuple(component.name for component in self.components)

    @cached_property
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
        """The last protocol that is not /p2p: whose transport the address belongs to."""
        others = [name for name in self.names if name != "p2p"]
        return others[-1] if others else "p2p"

    @property
    def host(self) -> str:
        """The IP address or name that the address starts with; empty if there is none."""
        for component in self.components:
            if component.name in _HOSTS:
                return component.text
        return ""

    @cached_property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The IP address that the address starts with."""
        for component in self.components[:2]:
            if component.name in ("ip4", "ip6"):
                return ipaddress.ip_address(component.data)
        return None

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
        return self.components[0].name in ("memory", "unix")

    def value_of(self, name: str) -> str | None:
        """Return the text of the first value of a protocol."""
        for component in self.components:
            if component.name == name:
                return component.text
        return None

    def with_peer(self, peer: PeerId) -> Multiaddr:
        """Return the address with /p2p/<peer> at its end, once."""
        if self.peer_id == peer:
            return self
        return Multiaddr((*self.without_peer().components, Component("p2p", bytes(peer))))

    def without_peer(self) -> Multiaddr:
        """Return the address without the /p2p at its end; itself if it is nothing else."""
        if self.names[-1] == "p2p" and len(self.components) > 1:
            return Multiaddr(self.components[:-1])
        return self

    def encapsulate(self, other: Multiaddr) -> Multiaddr:
        """Return the two addresses, one behind the other."""
        return Multiaddr((*self.components, *other.components))

    def decapsulate_at(self, name: str) -> Multiaddr:
        """Return what stands before the last `name`; itself if there is none."""
        if name not in self.names:
            return self
        last = len(self.names) - 1 - self.names[::-1].index(name)
        return Multiaddr(self.components[:last])

    def __bytes__(self) -> bytes:
        return b"".join(map(bytes, self.components))

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        return "".join(map(str, self.components))

    def __repr__(self) -> str:
        return f"Multiaddr({self._text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Multiaddr) and self.components == other.components

    def __hash__(self) -> int:
        return hash(self.components)


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    found = decode_varint(data, offset)
    if found is None:
        raise AddressError("an address that ends within a number")
    return found


def _number(bits: int) -> tuple[Callable[[str], bytes], Callable[[bytes], str]]:
    def to_bytes(text: str) -> bytes:
        number = int(text) if text.isascii() and text.isdigit() else -1
        if not 0 <= number < 1 << bits:
            raise ValueError(f"not a number below 2^{bits}")
        return number.to_bytes(bits // 8)

    return to_bytes, lambda data: str(int.from_bytes(data))


def _text_value(text: str) -> bytes:
    if "/" in text or not text.isprintable():
        raise ValueError("a name with a slash or a control character")
    return text.encode()


def _text_of(data: bytes) -> str:
    text = data.decode()
    if not text or "/" in text or not text.isprintable():
        raise ValueError("a name that is empty, or has a slash or a control character")
    return text


def _unix_of(data: bytes) -> str:
    text = data.decode()
    if not text.startswith("/") or not text.isprintable():
        raise ValueError("not an absolute path")
    return text.removeprefix("/")


def _certhash(text: str) -> bytes:
    data = multibase_decode(text)
    _certhash_text(data)
    return data


def _certhash_text(data: bytes) -> str:
    if len(data) < 2 or len(data) != data[1] + 2:
        raise ValueError("not a multihash")
    return multibase_encode(data, "u")


def _ip4(text: str) -> bytes:
    return ipaddress.IPv4Address(text).packed


def _ip6(text: str) -> bytes:
    return ipaddress.IPv6Address(text).packed


def _table() -> tuple[_Codec, ...]:
    ip4 = (_ip4, lambda data: str(ipaddress.IPv4Address(data)))
    ip6 = (_ip6, lambda data: str(ipaddress.IPv6Address(data)))
    name = (_text_value, _text_of)
    nothing = (lambda _: b"", lambda _: "")
    peer = (lambda text: bytes(PeerId.parse(text)), lambda data: str(PeerId.from_bytes(data)))
    path = (lambda text: unquote(text).encode(), lambda data: quote(data.decode(), safe=""))
    rows: tuple[
        tuple[str, int, int, tuple[Callable[[str], bytes], Callable[[bytes], str]]], ...
    ] = (
        ("ip4", 4, 4, ip4),
        ("tcp", 6, 2, _number(16)),
        ("ip6", 41, 16, ip6),
        ("ip6zone", 42, -1, name),
        ("ipcidr", 43, 1, _number(8)),
        ("dns", 53, -1, name),
        ("dns4", 54, -1, name),
        ("dns6", 55, -1, name),
        ("dnsaddr", 56, -1, name),
        ("udp", 273, 2, _number(16)),
        ("webrtc-direct", 280, 0, nothing),
        ("webrtc", 281, 0, nothing),
        ("p2p-circuit", 290, 0, nothing),
        ("unix", 400, -1, (str.encode, _unix_of)),
        ("p2p", 421, -1, peer),
        ("https", 443, 0, nothing),
        ("tls", 448, 0, nothing),
        ("sni", 449, -1, name),
        ("noise", 454, 0, nothing),
        ("quic", 460, 0, nothing),
        ("quic-v1", 461, 0, nothing),
        ("webtransport", 465, 0, nothing),
        ("certhash", 466, -1, (_certhash, _certhash_text)),
        ("ws", 477, 0, nothing),
        ("wss", 478, 0, nothing),
        ("http", 480, 0, nothing),
        ("http-path", 481, -1, path),
        # Eight bytes, as go and rust have it; never put on the wire.
        ("memory", 777, 8, _number(64)),
    )
    return tuple(_Codec(name, code, size, *codec) for name, code, size, codec in rows)


_ALIASES = {"ipfs": "p2p"}
_HOSTS = {"ip4", "ip6", "dns", "dns4", "dns6", "dnsaddr"}
_BY_NAME = {codec.name: codec for codec in _table()}
_BY_CODE = {codec.code: codec for codec in _BY_NAME.values()}
