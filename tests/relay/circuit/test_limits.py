"""Presets, what changes them, and the allowance of one direction of a circuit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.relay.circuit.limits import MIN_RATE, PRESETS, Allowance, RelayServerConfig
from isthmus.relay.circuit.wire import Limit
from isthmus.transports.core.errors import ConfigError
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.peer_id import PeerId

SOMEBODY = PeerId.from_public_key(PrivateKey.from_seed(b"\x01" * 32).public_key)


def test_public_has_the_limits_of_go():
    limits = PRESETS["public"]
    assert (limits.reservations, limits.reservations_per_prefix) == (128, 8)
    assert (limits.circuits_per_peer, limits.reservation_ttl) == (16, 3600)
    assert limits.told == Limit(120, 131072)


def test_generous_needs_a_list():
    with pytest.raises(ConfigError, match=r"relay\.allow"):
        RelayServerConfig(preset="generous")
    limits = RelayServerConfig(preset="generous", allow=(SOMEBODY,)).limits
    assert limits.told == Limit(4 * 3600, 2**30)
    assert limits.circuits_per_peer == 8


@pytest.mark.parametrize(
    ("preset", "is_on", "is_open"),
    [("off", False, False), ("default", True, False), ("public", True, True)],
)
def test_only_public_is_open(preset, is_on, is_open):
    config = RelayServerConfig(preset=preset)
    assert (config.is_on, config.is_open) == (is_on, is_open)
    assert not RelayServerConfig(preset="generous", allow=(SOMEBODY,)).is_open


@given(
    st.sampled_from(["off", "default", "generous", "public"]),
    st.dictionaries(
        st.sampled_from(["circuit_bytes", "circuit_duration", "circuit_rate", "bandwidth"]),
        st.just(0),
    ),
    st.dictionaries(
        st.sampled_from(["reservations", "reservations_per_prefix", "circuits"]),
        st.just(1 << 20),
    ),
    st.booleans(),
)
def test_no_setting_but_public_opens_a_relay(preset, unlimited, large, is_listed):
    allow = (SOMEBODY,) if is_listed or preset == "generous" else ()
    config = RelayServerConfig(preset=preset, allow=allow, **unlimited, **large)
    assert config.is_open == (preset == "public")


def test_what_is_set_replaces_the_presets_and_zero_is_no_limit():
    config = RelayServerConfig(
        preset="public", circuit_bytes=0, circuit_duration=0, circuits=7, circuit_rate=50_000
    )
    assert config.limits.told is None
    assert (config.limits.circuits, config.limits.circuit_rate) == (7, 50_000)
    assert config.limits.reservations == 128
    assert RelayServerConfig(preset="public", circuit_bytes=0).limits.told == Limit(120, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reservations", 0),
        ("reservations_per_prefix", 0),
        ("reservation_ttl", 59),
        ("reservation_ttl", 1e9),
        ("circuits", 0),
        ("circuits_per_peer", -1),
        ("circuit_duration", 0.5),
        ("circuit_duration", 2**32),
        ("circuit_bytes", 100),
        ("circuit_rate", 100),
        ("bandwidth", 1),
        ("bandwidth", -1),
    ],
)
def test_what_cannot_be_a_limit_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=rf"relay\.{name} must be at least"):
        RelayServerConfig(**{name: value})


@given(
    st.integers(MIN_RATE, 10**9),
    st.lists(st.integers(1, 65536), min_size=1, max_size=50),
    st.data(),
)
def test_a_rate_holds_within_a_tenth_over_ten_seconds(rate, sizes, data):
    """Whatever sizes come: who always has something to move gets its rate, and not more."""
    now = data.draw(st.floats(0, 1000))
    allowance, end, moved, turn = Allowance(total=None, rate=rate, now=now), now + 10, 0, 0
    while now < end and turn < 20_000:
        size = allowance.most(65536 if turn % 3 else sizes[turn % len(sizes)])
        assert size >= 1
        allowance.spend(size, now)
        moved += size
        now = max(now, allowance.ready_at(now))
        turn += 1
    lasted = now - (end - 10)
    assert moved <= rate * max(lasted, 10) * 1.1
    assert moved >= rate * min(lasted, 10) * 0.9
    assert allowance.moved == moved


def test_idleness_saves_up_no_more_than_a_burst():
    allowance = Allowance(total=None, rate=100_000, now=0.0)
    allowance.spend(allowance.most(65536), 1000.0)
    assert allowance.ready_at(1000.0) <= 1000.0
    allowance.spend(25_000, 1000.0)
    assert allowance.ready_at(1000.0) == pytest.approx(1000.25)


def test_a_total_is_met_to_the_byte():
    allowance = Allowance(total=100_000, rate=None, now=0.0)
    moved = 0
    while not allowance.is_spent:
        size = allowance.most(65536)
        allowance.spend(size, 0.0)
        moved += size
    assert moved == 100_000
    assert allowance.ready_at(5.0) == 5.0
