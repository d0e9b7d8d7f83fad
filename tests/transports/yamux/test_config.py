"""Settings that contradict each other are refused by name."""

from __future__ import annotations

import pytest
from isthmus.transports.core.errors import ConfigError
from isthmus.transports.yamux.config import YamuxConfig


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_inbound_streams", 0),
        ("accept_backlog", 0),
        ("max_unacknowledged", -1),
        ("receive_budget", -1),
        ("keepalive_interval", 0.0),
        ("keepalive_timeout", -1.0),
    ],
)
def test_a_bad_setting_is_named(setting: str, value: float):
    with pytest.raises(ConfigError, match=setting):
        YamuxConfig(**{setting: value})


def test_the_defaults_and_the_least_values_hold():
    YamuxConfig()
    YamuxConfig(max_inbound_streams=1, accept_backlog=1, max_unacknowledged=1, receive_budget=0)
