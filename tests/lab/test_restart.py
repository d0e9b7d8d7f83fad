"""A kept peer whose process was killed is connected again as soon as it listens again."""

from __future__ import annotations

import signal

import pytest

SOON = 1.0
"""Seconds from its `listening` line to the connection, in the first minute after a loss."""
LATE = 40.0
"""The same after five minutes, when attempts are up to 30 s apart, and a fifth of that more."""

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture
def kept(lab, start):
    """Give a function that starts a node and the peer that it keeps, each in a host of its own.

    It returns another function, which kills the peer, lets time pass, starts it again, and returns
    how long after its `listening` line the two were connected.
    """
    near, far = lab.add_host("near"), lab.add_host("far")

    def begin(backend):
        def listen(host):
            return ("--no-lan", "--listen", f"/ip4/{host.ip}/tcp/4001", "--backend", backend)

        keeper, peer = start(near, *listen(near)), start(far, *listen(far))
        name = peer.peer_id
        keeper.event("listening")
        keeper.ask("keep", peer.event("listening")["addresses"][0])
        keeper.event("peer_online", peer=name)

        def restart(seconds):
            nonlocal peer
            count = len(keeper.events("peer_online", peer=name))
            assert peer.stop(signal.SIGKILL) == -signal.SIGKILL
            lab.wait(seconds)
            assert keeper.events("link_changed", peer=name)[-1]["state"] == "reconnecting"
            peer = start(far, *listen(far), directory=peer.directory)
            begin = peer.event("listening")["time"]
            lab.until(
                lambda: len(keeper.events("peer_online", peer=name)) > count,
                timeout=LATE + 20,
                what="the peer online again",
            )
            assert keeper.events("link_changed", peer=name)[-1]["state"] == "connected"
            return keeper.events("peer_online", peer=name)[-1]["time"] - begin

        return restart

    return begin


def report(backend, seconds, times):
    print(f"\n{backend}: after {seconds} s, at most {max(times):.3f} s")  # noqa: T201


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seconds", [2, pytest.param(10, marks=pytest.mark.slow)])
@BACKENDS
def test_after_some_seconds(kept, scaled, backend, seconds):
    restart = kept(backend)
    times = [restart(seconds) for _ in range(scaled(20))]
    report(backend, seconds, times)
    assert max(times) < SOON


@pytest.mark.slow
@pytest.mark.timeout(1500)
@BACKENDS
def test_after_most_of_a_minute(kept, scaled, backend):
    restart = kept(backend)
    times = [restart(50) for _ in range(scaled(20))]
    report(backend, 50, times)
    assert max(times) < SOON


@pytest.mark.slow
@pytest.mark.timeout(600)
@BACKENDS
def test_after_five_minutes(kept, backend):
    times = [kept(backend)(300)]
    report(backend, 300, times)
    assert max(times) < LATE
