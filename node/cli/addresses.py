"""Addresses as people type them: parsed, or refused with the one that they may have meant."""

from __future__ import annotations

import ipaddress
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

from ...transports.core.errors import AddressError
from ...transports.core.multiaddr import Multiaddr
from ..dialing import parse_target
from ..printable import printable
from ..sentences import EXAMPLE_ADDRESS

if TYPE_CHECKING:
    from ..dialing import Target

WORDS = ("ip4", "ip6", "dns", "dns4", "dns6", "tcp", "p2p")
"""The protocols of the addresses that a person types."""

_HOST_AND_PORT = re.compile(
    r"(?:[a-z][a-z0-9+.-]*://)?(?:\[([0-9a-fA-F:.]+)\]|([\w.-]+)):([0-9]{1,5})/?", re.ASCII
)


def parse_address(text: str, *, example: str = EXAMPLE_ADDRESS) -> Multiaddr:
    """Parse an address; raises AddressError that says what is wrong and what would be right."""
    try:
        return Multiaddr.parse(text)
    except AddressError as error:
        why = str(error) if text.startswith("/") else f"{printable(text)!r} is no multiaddr"
        meant = suggestion(text)
        hint = f"did you mean {meant}?" if meant else f"an address looks like {example}"
        raise AddressError(f"{why}; {hint}") from error


def parse_destination(text: str) -> Target:
    """Parse a peer id or an address; raises AddressError as `parse_address` does."""
    try:
        return parse_target(text)
    except AddressError:
        return parse_target(parse_address(text))


def suggestion(text: str) -> str | None:
    """Return the address that a person may have meant by this one, which does not parse."""
    meant = _from_host_and_port(text) if not text.startswith("/") else _with_words(text)
    if meant is None or meant == text:
        return None
    try:
        return str(Multiaddr.parse(meant))
    except AddressError:
        return None


def _from_host_and_port(text: str) -> str | None:
    match = _HOST_AND_PORT.fullmatch(text.strip())
    if match is None:
        return None
    host = match[1] or match[2]
    try:
        kind = f"ip{ipaddress.ip_address(host).version}"
    except ValueError:
        kind = "dns"
    return f"/{kind}/{host}/tcp/{match[3]}"


def _with_words(text: str) -> str:
    """Replace every second part by the word that it resembles."""
    parts = text.split("/")
    for place in range(1, len(parts), 2):
        close = get_close_matches(parts[place].lower(), WORDS, n=1)
        if parts[place] not in WORDS and close:
            parts[place] = close[0]
    return "/".join(parts)
