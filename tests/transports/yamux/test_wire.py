"""Frames, as bytes that were written down by hand from the specification."""

from __future__ import annotations

import pytest
from isthmus.transports.yamux import wire


def test_a_header_is_twelve_bytes():
    assert wire.HEADER.size == wire.HEADER_SIZE == 12


@pytest.mark.parametrize(
    ("encoded", "golden"),
    [
        (wire.window_update(wire.SYN, 1, 0), "00 01 0001 00000001 00000000"),
        (wire.window_update(wire.ACK, 2, 262_144), "00 01 0002 00000002 00040000"),
        (wire.window_update(wire.FIN, 3, 0), "00 01 0004 00000003 00000000"),
        (wire.window_update(wire.RST, 0xFFFFFFFF, 7), "00 01 0008 ffffffff 00000007"),
        (wire.ping(wire.SYN, 0xDEADBEEF), "00 02 0001 00000000 deadbeef"),
        (wire.ping(wire.ACK, 0), "00 02 0002 00000000 00000000"),
        (wire.go_away(wire.GoAwayCode.NORMAL), "00 03 0000 00000000 00000000"),
        (wire.go_away(wire.GoAwayCode.PROTOCOL_ERROR), "00 03 0000 00000000 00000001"),
        (wire.go_away(wire.GoAwayCode.INTERNAL_ERROR), "00 03 0000 00000000 00000002"),
    ],
)
def test_golden_frames(encoded: bytes, golden: str):
    assert encoded == bytes.fromhex(golden)
