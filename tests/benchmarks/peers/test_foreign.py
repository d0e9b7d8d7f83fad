"""The foreign programs with each other: what they promise the tests and the benchmarks."""

from __future__ import annotations

import hashlib

import pytest
from isthmus.benchmarks.peers.control import launch
from isthmus.benchmarks.peers.errors import PeerFailed, PeerUnavailable
from isthmus.benchmarks.peers.install import argv_of

# The first run installs the programs, which takes half a minute.
pytestmark = [pytest.mark.interop, pytest.mark.timeout(400)]

EMPTY = hashlib.sha256(b"").hexdigest()
PROTOCOLS = {
    "/echo/1.0.0",
    "/ipfs/id/1.0.0",
    "/ipfs/ping/1.0.0",
    "/isthmus-test/one/1.0.0",
    "/isthmus-test/reset/1.0.0",
    "/isthmus-test/sink/1.0.0",
    "/isthmus-test/slow/1.0.0",
    "/perf/1.0.0",
}


@pytest.fixture(params=["js-js", "js-py", "py-js"])
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    left, right = request.param.split("-")
    try:
        argv_of(left)
        argv_of(right)
    except PeerUnavailable as error:
        pytest.skip(str(error))
    return left, right


async def test_commands(pair: tuple[str, str]) -> None:
    async with launch(pair[0]) as left, launch(pair[1]) as right:
        address = right.address
        assert (await left.call("connect", address=address))["peer_id"] == right.peer_id
        identity = await left.call("identify", address=address)
        assert identity["peer_id"] == right.peer_id
        assert set(identity["protocols"]) >= PROTOCOLS
        assert len((await left.call("ping", address=address, count=3))["rtt_ms"]) == 3
        echo = await left.call("echo", address=address, bytes=300_000, seed=5)
        assert echo["bytes"] == 300_000
        empty = await left.call("half_close", address=address, bytes=0)
        assert empty == {"bytes": 0, "sha256": EMPTY, "matches": True}
        assert (await left.call("half_close", address=address, bytes=1_000_000))["matches"]
        assert (await left.call("slow", address=address, bytes=1_000_000))["matches"]
        assert (await left.call("reset_remote", address=address))["reset"]
        assert (await left.call("reset_local", address=address))["ok"]
        streams = await left.call("streams", address=address, count=200)
        assert streams == {"opened": 200, "echoed": 200}
        assert (await left.call("disconnect", address=address))["closed"] >= 1
        assert (await left.call("echo", address=address, bytes=10))["bytes"] == 10


async def test_a_foreign_id_in_the_address_fails(pair: tuple[str, str]) -> None:
    async with launch(pair[0]) as left, launch(pair[1]) as right, launch("js") as third:
        place = right.address.rpartition("/p2p/")[0]
        with pytest.raises(PeerFailed):
            await left.call("wrong_peer", address=f"{place}/p2p/{third.peer_id}")


async def test_benches_measure_something(pair: tuple[str, str]) -> None:
    async with launch(pair[0]) as left, launch(pair[1]) as right:
        address = right.address
        for direction in ("up", "down"):
            figures = await left.call(
                "bench_throughput", address=address, direction=direction, bytes=2_000_000, streams=2
            )
            assert figures["mb_s"] > 0
        perf = await left.call("perf", address=address, upload=1_000_000, download=1_000_000)
        assert min(perf["upload_mb_s"], perf["download_mb_s"]) > 0
        echo = await left.call("bench_echo", address=address, count=50)
        assert 0 < echo["p50_us"] <= echo["p99_us"]
        assert (await left.call("bench_streams", address=address, count=20))["per_second"] > 0
        beside = await left.call("bench_beside", address=address, seconds=0.2)
        assert beside["samples"] > 0
        assert beside["bulk_mb_s"] > 0
        assert (await left.call("bench_dials", address=address, count=2))["per_second"] > 0


async def test_an_unknown_command_is_an_answer(pair: tuple[str, str]) -> None:
    async with launch(pair[0]) as left:
        with pytest.raises(PeerFailed) as failure:
            await left.call("dance")
        assert failure.value.kind == "UnknownCommand"
