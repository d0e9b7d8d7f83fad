"""What a relay tells of its load, and what is believed of that."""

from __future__ import annotations

from dataclasses import replace

import anyio
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.relay.circuit.info import INFO_PROTOCOL, RelayInfo
from isthmus.relay.circuit.limits import PRESETS
from isthmus.transports.core.errors import RemoteProtocolError, StreamReset

from .hops import PATIENCE, clients, relay

INFO = RelayInfo.of(PRESETS["public"], reservations=3, circuits=2, bytes_per_second=1.5)


def test_it_is_read_as_it_was_written():
    for info in (INFO, replace(INFO, circuit_duration=None, circuit_bytes=None)):
        assert RelayInfo.decode(info.encode()) == info


def test_what_later_versions_add_is_ignored():
    values = {**msgpack.unpackb(INFO.encode()), "colour": "blue"}
    assert RelayInfo.decode(msgpack.packb(values)) == INFO


@pytest.mark.parametrize(
    "change",
    [
        {"reservations": None},
        {"reservations": -1},
        {"reservations": 1.5},
        {"circuits": True},
        {"circuits": "2"},
        {"bytes_per_second": float("nan")},
        {"bytes_per_second": float("inf")},
        {"colours": ["blue"]},
        {"text": "x" * 100},
        {1: 2},
    ],
)
def test_what_cannot_be_is_refused(change):
    values = {**msgpack.unpackb(INFO.encode()), **change}
    with pytest.raises(RemoteProtocolError):
        RelayInfo.decode(msgpack.packb(values))


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"\x90", b"\xc1", INFO.encode() + b"x", bytes(2000)]
)
def test_what_is_no_map_is_refused(data):
    with pytest.raises(RemoteProtocolError):
        RelayInfo.decode(data)


@given(st.binary(max_size=300), st.integers(0, 250), st.integers(0, 255))
def test_fuzz(data, position, byte):
    changed = bytearray(INFO.encode())
    changed[position % len(changed)] = byte
    for each in (data, bytes(changed)):
        try:
            info = RelayInfo.decode(each)
        except RemoteProtocolError as error:
            assert str(error)  # noqa: PT017 - the only exception that may come
        else:
            assert info.circuits >= 0


async def test_a_relay_tells_those_whom_it_serves():
    async with relay() as node, clients(node, 1) as (alice,):
        await alice.reserve()
        with anyio.fail_after(PATIENCE):
            info = RelayInfo.decode(await alice.node.request(node.addresses, INFO_PROTOCOL))
        assert info == replace(INFO, reservations=1, circuits=0, bytes_per_second=0)
    async with relay("default") as node, clients(node, 1) as (alice,):
        with anyio.fail_after(PATIENCE), pytest.raises(StreamReset):
            await alice.node.request(node.addresses, INFO_PROTOCOL)
