"""Amounts of bytes as people write them, and rates as they read them."""

from __future__ import annotations

import re
from decimal import Decimal

UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}

MAX_SIZE = 2**63 - 1
"""What eight signed bytes hold; perf sends eight."""

_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?)\s*([a-zA-Z]{0,3})", re.ASCII)


def parse_size(text: str) -> int:
    """Return bytes: `65536`, `200MB` (10^6), `1GiB` (2^30), `1.5GB`; case does not matter.

    Raises ValueError, with what would do, for anything else and for parts of a byte.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is not a size; write 65536, 200MB or 1GiB")
    size = Decimal(match[1]) * unit
    if size != int(size) or size > MAX_SIZE:
        raise ValueError(f"{text!r} is not a whole number of bytes up to 2^63 - 1")
    return int(size)


def format_size(size: int) -> str:
    """Return bytes in the largest decimal unit that leaves at least one, as `200 MB`."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size} B"


def megabytes_per_second(size: int, seconds: float) -> float | None:
    """Return the rate in 10^6 bytes a second; None if nothing was carried."""
    if not size:
        return None
    return size / 1e6 / max(seconds, 1e-9)
