"""The text forms of bytes in peer ids and certificate hashes: base58btc and multibase.

Every decoder is strict: a text that `encode` would not have produced is refused, except for case
where the base has none. Inputs are bounded, because base58 and base36 cost quadratic time.
"""

from __future__ import annotations

import base64
import binascii

from .errors import AddressError

__all__ = ["MAX_TEXT", "base58_decode", "base58_encode", "multibase_decode", "multibase_encode"]

MAX_TEXT = 256
"""Characters: the longest text here is a 64-byte digest in base16, about 140."""

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_BASE58_DIGITS = {character: value for value, character in enumerate(_BASE58)}
_BASE36_DIGITS = {character: value for value, character in enumerate(_BASE36)}
_CHUNK = 10
_CHUNK_BASE = 58**_CHUNK


def base58_encode(data: bytes) -> str:
    """Encode as base58 with Bitcoin's alphabet."""
    number = int.from_bytes(data, "big")
    digits: list[str] = []
    while number:
        # Ten digits at a time, so that the long division is rare and the short one fast.
        number, chunk = divmod(number, _CHUNK_BASE)
        for _ in range(_CHUNK):
            chunk, digit = divmod(chunk, 58)
            digits.append(_BASE58[digit])
    text = "".join(reversed(digits)).lstrip("1")
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def base58_decode(text: str) -> bytes:
    """Decode base58; raises AddressError for a foreign character or more than `MAX_TEXT`."""
    return _decode_digits(_bounded(text), _BASE58_DIGITS)


def multibase_encode(data: bytes, base: str) -> str:
    """Encode with the multibase prefix `base`: one of f, b, k, z, u (RFC 4648 ones unpadded)."""
    if base == "f":
        return "f" + data.hex()
    if base == "b":
        return "b" + base64.b32encode(data).decode().rstrip("=").lower()
    if base == "k":
        return "k" + _base36_encode(data)
    if base == "z":
        return "z" + base58_encode(data)
    if base == "u":
        return "u" + base64.urlsafe_b64encode(data).decode().rstrip("=")
    raise AddressError(f"no multibase encoding is called {base!r}")


def multibase_decode(text: str) -> bytes:
    """Decode any of the encodings f F b B k K z u; raises AddressError."""
    text = _bounded(text)
    prefix, digits = text[:1], text[1:]
    if prefix in ("F", "B", "K"):
        if digits != digits.upper():
            raise AddressError("an upper case multibase text has lower case in it")
        prefix, digits = prefix.lower(), digits.lower()
    data = _decode(prefix, digits)
    if multibase_encode(data, prefix) != prefix + digits:
        raise AddressError("a multibase text is not in its canonical form")
    return data


def _decode(prefix: str, digits: str) -> bytes:
    try:
        if prefix == "f":
            return bytes.fromhex(digits)
        if prefix == "b":
            return base64.b32decode(digits.upper() + "=" * (-len(digits) % 8))
        if prefix == "u":
            return base64.urlsafe_b64decode(digits + "=" * (-len(digits) % 4))
    except (ValueError, binascii.Error) as error:
        raise AddressError(f"a multibase text does not decode: {error}") from None
    if prefix == "k":
        return _decode_digits(digits, _BASE36_DIGITS)
    if prefix == "z":
        return _decode_digits(digits, _BASE58_DIGITS)
    raise AddressError(f"no multibase encoding begins with {prefix!r}")


def _bounded(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise AddressError(f"a text of {len(text)} characters is longer than {MAX_TEXT}")
    return text


def _base36_encode(data: bytes) -> str:
    number = int.from_bytes(data, "big")
    digits: list[str] = []
    while number:
        number, digit = divmod(number, 36)
        digits.append(_BASE36[digit])
    return "0" * (len(data) - len(data.lstrip(b"\0"))) + "".join(reversed(digits))


def _decode_digits(text: str, values: dict[str, int]) -> bytes:
    base = len(values)
    number = 0
    zeros = 0
    for character in text:
        value = values.get(character)
        if value is None:
            raise AddressError(f"{character!r} is no digit of base {base}")
        number = number * base + value
        zeros += number == 0
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
